"""The U-Net on the spectrogram, with the STFT before it and the inverse after it."""

from collections.abc import Sequence

import keras
from keras import ops

from pipelines.spectra import magnitude, make_spectra
from sepnet.models.blocks import BlockStyle, CropLike, PadToGrid
from sepnet.models.network import Network, round_up
from sepnet.models.outputs import Estimates, SplitSources, num_outputs
from sepnet.models.unet import context, level_filters, unet


def build_unet_2d(
    *,
    sources: Sequence[str],
    num_channels: int,
    sample_rate: int,
    depth: int,
    base_filters: int,
    filter_growth: str,
    output: str,
    frame_length: int,
    frame_step: int,
    **style,
) -> Network:
    """Builds a 2-D U-Net on STFT magnitudes; the stems take the mixture's phase.

    Reference: Jansson et al. 2017 (https://ejhumphrey.com/assets/pdf/jansson2017singing.pdf) for masks, Oh, Kim, Yun
    2018 (https://arxiv.org/abs/1810.11520) for magnitudes as channels ("direct"). Deliberate differences: the network
    sees log magnitudes and where a bin lies in frequency, and all sources come from one network.

    Args:
        sources: names of the stems, in order.
        num_channels: audio channels in and out.
        sample_rate: Hz.
        depth: number of levels, 1 or more.
        base_filters: filters of the first level.
        filter_growth: "add" or "double"; see `level_filters`.
        output: what the last convolution gives; see `Estimates`. It acts on magnitudes.
        frame_length: STFT window in samples.
        frame_step: samples from one frame to the next, up to half of `frame_length`.
        **style: the remaining fields of `BlockStyle`.
    """
    style = BlockStyle(rank=2, **style)
    spectra = make_spectra(frame_length=frame_length, frame_step=frame_step)
    mixture = keras.Input((None, num_channels), name="mixture")
    real, imag = spectra.stft(mixture)
    magnitudes, *phase = Polar(dtype="float32", name="polar")(real, imag)
    picture = LogMagnitudes(dtype="float32", name="log_magnitudes")(magnitudes)
    padded = PadToGrid(2**depth, name="pad")(picture)
    features = unet(padded, level_filters(depth, base_filters, filter_growth), style)
    features = CropLike(name="crop")(features, picture)
    # Masks and magnitudes stay float32 under any precision policy.
    raw = keras.layers.Conv2D(
        num_outputs(sources, output) * num_channels,
        1,
        activation="relu" if output in ("direct", "difference") else None,
        dtype="float32",
        name="stems",
    )(features)
    raw = RepeatLastBin(dtype="float32", name="repeat_last_bin")(raw)
    estimates = Estimates(len(sources), output, dtype="float32", name="estimates")(raw, magnitudes)
    stacked = spectra.inverse_stft(*Rectangular(dtype="float32", name="rectangular")(estimates, *phase), mixture)
    stems = SplitSources(list(sources), dtype="float32", name="sources")(stacked)
    context_samples = frame_step * context(depth, style) + frame_length
    grid = frame_step * 2**depth
    return Network(keras.Model(mixture, stems, name="unet_2d"), grid, round_up(context_samples, grid))


@keras.saving.register_keras_serializable(package="sepnet")
class Polar(keras.layers.Layer):
    """Magnitude, and cosine and sine of the phase, of a complex spectrum; silence has a phase of zero length."""

    def call(self, real, imag):
        size = magnitude(real, imag)
        return size, real / size, imag / size

    def compute_output_shape(self, real_shape, imag_shape):
        return (real_shape,) * 3


@keras.saving.register_keras_serializable(package="sepnet")
class Rectangular(keras.layers.Layer):
    """Gives the magnitudes of every source, `[..., num_sources * num_channels]`, the phase of the mixture."""

    def call(self, magnitudes, cosine, sine):
        repeats = magnitudes.shape[-1] // cosine.shape[-1]
        return tuple(magnitudes * ops.concatenate([part] * repeats, axis=-1) for part in (cosine, sine))

    def compute_output_shape(self, magnitudes_shape, cosine_shape, sine_shape):
        return (magnitudes_shape,) * 2


@keras.saving.register_keras_serializable(package="sepnet")
class LogMagnitudes(keras.layers.Layer):
    """What the network sees of magnitudes `[batch, num_frames, num_bins, num_channels]`.

    Their logarithm, without the highest bin, so that the number of bins is even down to the deepest level; and one
    more channel that rises from 0 to 1 over frequency, since convolutions cannot tell low from high.
    """

    def call(self, magnitudes):
        picture = ops.log1p(magnitudes[:, :, :-1])
        ramp = ops.reshape(ops.linspace(0.0, 1.0, picture.shape[2]), (1, 1, -1, 1))
        return ops.concatenate([picture, ops.zeros_like(picture[..., :1]) + ramp], axis=-1)

    def compute_output_shape(self, magnitudes_shape):
        batch, num_frames, num_bins, num_channels = magnitudes_shape
        return batch, num_frames, num_bins - 1, num_channels + 1


@keras.saving.register_keras_serializable(package="sepnet")
class RepeatLastBin(keras.layers.Layer):
    """Gives the highest bin, which the network does not see, the value of the one below it."""

    def call(self, inputs):
        return ops.concatenate([inputs, inputs[:, :, -1:]], axis=2)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:2], input_shape[2] + 1, input_shape[3])
