"""Spectra on the device: the STFT, its inverse and mel bands as Keras layers with common settings.

The frames lie on a fixed grid: frame `k` begins at sample `(k + 1 - overlap) * frame_step`, with
`overlap = ceil(frame_length / frame_step)`, whatever the length of the signal, and every frame that touches the signal
is there. Outside of the signal are zeros. A block that begins at a multiple of `frame_step` therefore gives the
values of the whole signal, except for `frame_length - 1` samples at either end.

Complex numbers travel as pairs of real tensors, which every backend, precision policy and export format can carry.

Spectra are `[batch, num_channels, num_frames, num_bins]`, as the Fourier transform gives them and its inverse takes
them: with few channels in the last place instead, all that is done for each source takes several times as long.
"""

import dataclasses
import math

import keras
import numpy as np
from keras import ops

from pipelines.errors import UserError

MAGNITUDE_FLOOR = 1e-7


class _ToldLayer(keras.layers.Layer):
    """Base of the layers: tells a network what `sepnet.models.layers.plain` lists; a frame comes of the same frame."""

    is_local = True

    def reach(self, first, last, inputs, outputs):
        """The first and last place in time, in each input, that outputs from `first` to `last` depend on."""
        return [(first, last)] * len(inputs)

    def memory(self, inputs, outputs, recompute):
        """Bytes that are needed beside inputs and outputs."""
        return {}


class _FrameGrid(_ToldLayer):
    """Base of `STFT` and `InverseSTFT`: holds the window and the places of its frames.

    The arguments are those of `make_spectra`, and `name`. It computes in float32 under any precision policy.
    """

    def __init__(self, *, frame_length, frame_step, **kwargs):
        if frame_length < 2:
            raise UserError(f"frame_length is {frame_length}: give a window of 2 samples or more.")
        largest_step = frame_length * 3 // 4
        if not 1 <= frame_step <= largest_step:
            raise UserError(
                f"frame_step is {frame_step}: with frame_length {frame_length} it must be 1 to {largest_step}, "
                "or the inverse cannot give every sample back; lower frame_step or raise frame_length."
            )
        super().__init__(**{**kwargs, "dtype": "float32", "trainable": False})
        self.frame_length = frame_length
        self.frame_step = frame_step
        self.num_bins = frame_length // 2 + 1
        self.overlap = -(-frame_length // frame_step)
        self._window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(frame_length) / frame_length)

    def _num_blocks(self, num_samples):
        return -(-num_samples // self.frame_step)

    def num_frames(self, num_samples):
        """Number of frames of a signal, `ceil(num_samples / frame_step) + overlap - 1`, as an `int` or a tensor."""
        return self._num_blocks(num_samples) + self.overlap - 1

    def _transform_flops(self, num_bins: int) -> int:
        """Operations of Fourier transforms of real values that have so many bins together, by the usual estimate."""
        return round(num_bins / self.num_bins * 2.5 * self.frame_length * math.log2(self.frame_length))

    def get_config(self):
        return {**super().get_config(), "frame_length": self.frame_length, "frame_step": self.frame_step}


@keras.saving.register_keras_serializable(package="sepnet")
class STFT(_FrameGrid):
    """Short-time Fourier transform of a waveform, unscaled, with a periodic Hann window."""

    def call(self, waveform):
        """Transforms `waveform`.

        Args:
            waveform: float `[batch, num_samples, num_channels]`, full scale ±1, any number of samples from 1 up.

        Returns:
            The real and the imaginary part, each float32 `[batch, num_channels, num_frames, num_bins]`; a full-scale
            sine reaches a magnitude of `frame_length / 4`.
        """
        num_samples = ops.shape(waveform)[1]
        before = (self.overlap - 1) * self.frame_step
        after = before + self._num_blocks(num_samples) * self.frame_step - num_samples
        padded = ops.pad(ops.transpose(waveform, (0, 2, 1)), [[0, 0], [0, 0], [before, after]])
        frames = ops.extract_sequences(padded, self.frame_length, self.frame_step)
        return ops.rfft(frames * self._window.astype("float32"), self.frame_length)

    def reach(self, first, last, inputs, outputs):
        begin = (first + 1 - self.overlap) * self.frame_step
        end = (last + 1 - self.overlap) * self.frame_step + self.frame_length
        # The first value of the window is zero.
        return [(begin + 1, end - 1)]

    def flops(self, inputs, outputs):
        return self._transform_flops(outputs[0].size)

    def memory(self, inputs, outputs, recompute):
        num_values = sum(tensor.size for tensor in outputs)
        return {"forward": 2 * (4 * num_values * self.frame_length // (2 * self.num_bins))}

    def compute_output_shape(self, waveform_shape):
        batch, num_samples, num_channels = waveform_shape
        num_frames = None if num_samples is None else self.num_frames(num_samples)
        return ((batch, num_channels, num_frames, self.num_bins),) * 2


@keras.saving.register_keras_serializable(package="sepnet")
class InverseSTFT(_FrameGrid):
    """The waveform whose STFT is nearest to a given one, which may have been changed.

    Reference:
        Griffin and Lim, "Signal estimation from modified short-time Fourier transform", 1984, equation 6: frames are
        windowed again, added, and divided by the sum of the squared windows. That sum repeats with each step, because
        every frame that touches the signal is there, so it is divided out of the window beforehand.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        # Samples of a frame's last step beyond the window, where frame_step does not divide frame_length.
        self._beyond = self.overlap * self.frame_step - self.frame_length
        squares = np.pad(self._window**2, (0, self._beyond)).reshape(self.overlap, self.frame_step)
        self._inverse_window = self._window / np.resize(squares.sum(axis=0), self.frame_length)

    def call(self, real, imag, waveform):
        """Transforms the two parts, as `STFT` gives them, back to a waveform.

        The result is as long as `waveform`, any tensor `[batch, num_samples, ...]`, whose values are not used.
        """
        num_samples = ops.shape(waveform)[1]
        num_blocks = self._num_blocks(num_samples)
        frames = ops.irfft((real, imag), self.frame_length) * self._inverse_window.astype("float32")
        if self._beyond:
            frames = ops.pad(frames, [[0, 0], [0, 0], [0, 0], [0, self._beyond]])
        parts = ops.split(frames, self.overlap, axis=-1)
        # Part i of frame k lies on block k + i - (overlap - 1) of the signal; the blocks outside are never added up.
        firsts = range(self.overlap - 1, -1, -1)
        blocks = sum(stretch(part, 2, first, num_blocks) for first, part in zip(firsts, parts, strict=True))
        shape = ops.shape(real)
        samples = ops.reshape(blocks, (shape[0], shape[1], num_blocks * self.frame_step))
        return ops.transpose(stretch(samples, 2, 0, num_samples), (0, 2, 1))

    def reach(self, first, last, inputs, outputs):
        step, shift = self.frame_step, self.overlap - 1
        frames = (shift - (self.frame_length - 1 - first) // step, shift + (last - 1) // step)
        return [frames, frames, None]

    def flops(self, inputs, outputs):
        return self._transform_flops(inputs[0].size)

    def memory(self, inputs, outputs, recompute):
        given = sum(tensor.num_bytes for tensor in inputs)
        frames = given * self.frame_length // (2 * self.num_bins)
        # Forward, the two parts are gone once they are one complex spectrum.
        return {"forward": max(given, frames), "backward": given + frames}

    def compute_output_shape(self, real_shape, imag_shape, waveform_shape):
        return (real_shape[0], waveform_shape[1], real_shape[1])


def stretch(tensor, axis: int, first, length):
    """The part of a tensor that begins at `first` on an axis and is `length` long.

    TensorFlow's gradient of `tensor[..., first : first + length]` takes many times as long as that of this.
    """
    shape = list(ops.shape(tensor))
    begins = [0] * len(shape)
    shape[axis], begins[axis] = length, first
    return ops.slice(tensor, begins, shape)


def magnitude(real, imag):
    """Magnitude of a complex spectrum, float32, with a finite gradient everywhere.

    It is `sqrt(real² + imag² + floor²)`, with floor `MAGNITUDE_FLOOR` (1e-7): silence has magnitude 1e-7 and gradient
    0, and no gradient exceeds 1.
    """
    real, imag = ops.cast(real, "float32"), ops.cast(imag, "float32")
    return ops.sqrt(real * real + imag * imag + MAGNITUDE_FLOOR**2)


def _hz_to_mel(hz):
    """Slaney's mel scale: linear up to 1 kHz (15 mel), then 27 mel for each factor of 6.4."""
    return np.where(hz < 1000, hz * 0.015, 15 + 27 * np.log(np.maximum(hz, 1000) / 1000) / np.log(6.4))


def _mel_to_hz(mel):
    return np.where(mel < 15, mel / 0.015, 1000 * 6.4 ** ((np.maximum(mel, 15) - 15) / 27))


def _hats(hz, peaks_hz):
    """Triangles `[len(peaks_hz), len(hz)]`: 1 at their own peak, 0 from the next one on; the outer two stay at 1."""
    return np.stack([np.interp(hz, peaks_hz, row) for row in np.eye(len(peaks_hz))])


class _MelBands(_ToldLayer):
    """Base of `MelSpectrogram` and `MelToLinear`: holds the places of the mel bands.

    The arguments are those of `make_spectra`, and `name`. It computes in float32 under any precision policy.
    """

    def __init__(self, *, sample_rate, frame_length, num_mel_bands, **kwargs):
        if num_mel_bands < 1:
            raise UserError(f"num_mel_bands is {num_mel_bands}: give 1 or more, or leave it out.")
        super().__init__(**{**kwargs, "dtype": "float32", "trainable": False})
        self.sample_rate = sample_rate
        self.frame_length = frame_length
        self.num_mel_bands = num_mel_bands
        self._bin_hz = np.arange(frame_length // 2 + 1) * sample_rate / frame_length
        self._edge_hz = _mel_to_hz(np.linspace(*_hz_to_mel(np.array([0.0, sample_rate / 2])), num_mel_bands + 2))
        self._bank = _hats(self._bin_hz, self._edge_hz)[1:-1]
        num_empty = int(np.sum(self._bank.max(axis=1) == 0))
        if num_empty:
            raise UserError(
                f"num_mel_bands is {num_mel_bands}: {num_empty} of them are narrower than a bin "
                f"({sample_rate / frame_length:.1f} Hz) and would be silent; lower num_mel_bands or raise frame_length."
            )

    def flops(self, inputs, outputs):
        return 2 * outputs[0].size * inputs[0].shape[-1]

    def get_config(self):
        names = ("sample_rate", "frame_length", "num_mel_bands")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@keras.saving.register_keras_serializable(package="sepnet")
class MelSpectrogram(_MelBands):
    """Mel bands of a magnitude spectrum: `librosa.filters.mel(htk=False, norm="slaney")`.

    Each band is a triangle over frequency in Hz, of area 1.

    Reference:
        Slaney, "Auditory Toolbox", Interval Research technical report 1998-010.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        area_hz = (self._edge_hz[2:] - self._edge_hz[:-2]) / 2
        self._weights = (self._bank / area_hz[:, None]).astype("float32")

    def call(self, magnitude):
        """Sums bins into bands; of powers as well, which `librosa.feature.melspectrogram` sums."""
        return ops.matmul(magnitude, self._weights.T)

    def compute_output_shape(self, magnitude_shape):
        return (*magnitude_shape[:-1], self.num_mel_bands)


@keras.saving.register_keras_serializable(package="sepnet")
class MelToLinear(_MelBands):
    """Carries a mask on mel bands back to the linear bins.

    A bin takes the values of the two bands whose centres enclose it, interpolated over frequency: the transpose of
    the triangles before their areas are made equal, each row divided by its sum. A bin below the first centre or above
    the last one takes the value of that band. So a mask of ones gives ones in every bin, and a mask within 0 and 1
    stays there.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._weights = _hats(self._bin_hz, self._edge_hz[1:-1]).astype("float32")

    def call(self, band_mask):
        """Spreads bands over bins."""
        return ops.matmul(band_mask, self._weights)

    def compute_output_shape(self, band_mask_shape):
        return (*band_mask_shape[:-1], self.frame_length // 2 + 1)


@dataclasses.dataclass(frozen=True)
class Spectra:
    """Layers whose settings agree; `mel` and `mel_to_linear` are `None` without mel bands."""

    stft: STFT
    inverse_stft: InverseSTFT
    mel: MelSpectrogram | None = None
    mel_to_linear: MelToLinear | None = None


def make_spectra(*, frame_length, frame_step, sample_rate=None, num_mel_bands=None):
    """Makes the STFT, its inverse and, if `num_mel_bands` is given, the mel layers, all with the same settings.

    Args:
        frame_length: length of the periodic Hann window, in samples, at least 2.
        frame_step: samples from one frame to the next, 1 to three quarters of `frame_length`, beyond which the window
            leaves too little of some samples to give them back.
        sample_rate: Hz; needed for mel bands only.
        num_mel_bands: number of mel bands, from 0 Hz to half of the sample rate, or `None` for no mel layers.

    Raises:
        UserError: a setting is out of its range, or a mel band is so narrow that no bin lies in it.
    """
    frames = {"frame_length": frame_length, "frame_step": frame_step}
    stft, inverse_stft = STFT(**frames), InverseSTFT(**frames)
    if num_mel_bands is None:
        return Spectra(stft, inverse_stft)
    if not sample_rate:
        raise UserError(f"sample_rate is {sample_rate}: mel bands need the sample rate, in Hz.")
    bands = {"sample_rate": sample_rate, "frame_length": frame_length, "num_mel_bands": num_mel_bands}
    return Spectra(stft, inverse_stft, MelSpectrogram(**bands), MelToLinear(**bands))
