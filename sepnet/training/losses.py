"""Losses of training, by name; models are compared by `val_mse`, whichever loss they were trained on.

`sources` and `estimates` are `[batch, num_samples, num_sources, num_channels]`, float32, full scale ±1; a loss gives
one number for each source, `[num_sources]`.
"""

from collections.abc import Callable, Sequence

from keras import ops

from pipelines.batches.spectra import STFT, magnitude
from sepnet.config.training import LOSSES
from sepnet.measures.metrics import average, squared_errors
from sepnet.options.registry import load

# Window lengths of the multi-resolution loss; a window moves by a quarter of itself.
RESOLUTIONS = (512, 1024, 2048)
LOG_FLOOR = 1e-5


def make_loss(name: str, source_weights: Sequence[float] | None = None) -> Callable:
    """Makes the function `(sources, estimates) -> scalar`.

    Args:
        name: of the loss, one of `sepnet.config.training.LOSSES`.
        source_weights: one for each source; None weighs all alike. They are scaled so that their mean is 1.
    """
    by_source = load(LOSSES, name, "loss")

    def loss(sources, estimates):
        values = by_source(sources, estimates)
        if source_weights is None:
            return ops.mean(values)
        weights = ops.convert_to_tensor(source_weights, "float32")
        return ops.mean(values * weights / ops.mean(weights))

    return loss


def mse(sources, estimates):
    """The mean square of the difference of the waveforms."""
    return ops.mean(squared_errors(sources, estimates), axis=0)


def l1(sources, estimates):
    """The mean absolute difference of the waveforms."""
    return ops.mean(average(ops.abs(estimates - sources)), axis=0)


def magnitude_mse(sources, estimates):
    """The mean square of the difference of STFT magnitudes."""
    true, predicted = (_magnitudes(audio, 1024) for audio in (sources, estimates))
    return ops.mean(ops.square(predicted - true), axis=(0, 2, 3, 4))


def magnitude_l1(sources, estimates):
    """The mean absolute difference of STFT magnitudes (Oh, Kim, Yun 2018)."""
    true, predicted = (_magnitudes(audio, 1024) for audio in (sources, estimates))
    return ops.mean(ops.abs(predicted - true), axis=(0, 2, 3, 4))


def multi_resolution_stft(sources, estimates):
    """Spectral convergence and log magnitudes at three resolutions (Yamamoto, Song, Kim 2020, equation 6)."""
    total = 0.0
    for frame_length in RESOLUTIONS:
        true, predicted = (_magnitudes(audio, frame_length) for audio in (sources, estimates))
        # Over the batch, since a segment may be silent and its ratio without a bound.
        error = ops.sqrt(ops.sum(ops.square(predicted - true), axis=(0, 2, 3, 4)) + LOG_FLOOR)
        convergence = error / ops.sqrt(ops.sum(ops.square(true), axis=(0, 2, 3, 4)) + LOG_FLOOR)
        logs = ops.abs(ops.log(predicted + LOG_FLOOR) - ops.log(true + LOG_FLOOR))
        total = total + convergence + ops.mean(logs, axis=(0, 2, 3, 4))
    return total / len(RESOLUTIONS)


def _magnitudes(audio, frame_length: int):
    """STFT magnitudes `[batch, num_sources, num_channels, num_frames, num_bins]`."""
    batch, num_samples, num_sources, num_channels = ops.shape(audio)
    joined = ops.reshape(audio, (batch, num_samples, num_sources * num_channels))
    spectrum = magnitude(*STFT(frame_length=frame_length, frame_step=frame_length // 4)(joined))
    return ops.reshape(spectrum, (batch, num_sources, num_channels, *ops.shape(spectrum)[2:]))
