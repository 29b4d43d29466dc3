"""The STFT as PyTorch's `center=True` places it: frames around their times, and the signal mirrored at its ends."""

import keras
from keras import ops

from pipelines.batches.spectra import STFT, InverseSTFT, stretch


@keras.saving.register_keras_serializable(package="sepnet")
class CentredSTFT(STFT):
    """`STFT` with frame `k` around sample `k * frame_step`, the last around the signal's last step.

    A signal of `frame_step * (num_frames - 1)` samples, more than half of `frame_length`, has `num_frames` frames.
    """

    is_local = False

    def num_frames(self, num_samples):
        """See `STFT`."""
        return num_samples // self.frame_step + 1

    def call(self, waveform):
        """See `STFT`."""
        half = self.frame_length // 2
        # Its own frames that reach beyond what is mirrored are not among PyTorch's.
        outside = self.overlap - 1
        mirrored = ops.pad(waveform, [(0, 0), (half, half), (0, 0)], mode="reflect")
        num_frames = self.num_frames(ops.shape(waveform)[1])
        return tuple(stretch(part, 2, outside, num_frames) for part in super().call(mirrored))


@keras.saving.register_keras_serializable(package="sepnet")
class CentredInverseSTFT(InverseSTFT):
    """The inverse of `CentredSTFT`: at the ends, fewer frames are divided by what these have of the window alone."""

    is_local = False

    def call(self, real, imag, waveform):
        """See `InverseSTFT`."""
        half, outside = self.frame_length // 2, self.overlap - 1
        mirrored = ops.pad(waveform[:1, :, :1], [(0, 0), (half, half), (0, 0)])
        frames = [(0, 0), (0, 0), (outside, outside), (0, 0)]
        samples = super().call(ops.pad(real, frames), ops.pad(imag, frames), mirrored)
        # What frames of the window itself become is its share at each sample: 1, but for the ends.
        window = ops.rfft(ops.cast(self._window, "float32"), self.frame_length)
        as_frames = ops.zeros_like(real[:1, :1])
        shares = super().call(*(ops.pad(part + as_frames, frames) for part in window), mirrored)
        length = ops.shape(waveform)[1]
        return stretch(samples, 1, half, length) / stretch(shares, 1, half, length)
