"""Layers on complex spectra, whose real and imaginary parts travel as two real tensors, channels before frames."""

import math

import keras
from keras import ops

from pipelines.batches.spectra import magnitude
from sepnet.models.layers.plain import PlainLayer

# Parts of a spectrum are seen with the magnitude to this power.
COMPRESSION = 0.5
# What the magnitude of a bounded mask does not exceed.
LARGEST_MASK = 2.0
# A phase that both of its numbers leave open is not turned.
PHASE_FLOOR = 1e-3


@keras.saving.register_keras_serializable(package="sepnet")
class Parts(PlainLayer):
    """Real and imaginary parts `[batch, num_channels, num_frames, num_bins]` as channels, one after the other.

    Args:
        compressed: the magnitudes are raised to the power `COMPRESSION`, and the phases stay.
    """

    def __init__(self, compressed: bool, **kwargs):
        super().__init__(**kwargs)
        self.compressed = compressed

    def call(self, real, imag):
        if not self.compressed:
            return ops.concatenate([real, imag], axis=1)
        scale = ops.power(magnitude(real, imag), COMPRESSION - 1.0)
        return ops.concatenate([real * scale, imag * scale], axis=1)

    def compute_output_shape(self, real_shape, imag_shape):
        return (real_shape[0], 2 * real_shape[1], *real_shape[2:])

    def get_config(self):
        return {**super().get_config(), "compressed": self.compressed}


@keras.saving.register_keras_serializable(package="sepnet")
class ComplexEstimates(PlainLayer):
    """Spectra of the sources, from the mixture's and the last convolution's channels.

    Where these are zero, every mask gives each source the mixture divided by the number of sources.

    Args:
        num_sources: number of sources.
        output: "complex_mask" (any complex factor), "bounded_mask" (one that is no larger than `LARGEST_MASK`),
            "consistent_mask" (factors that add up to one over the sources), "decoupled_mask" (a factor and a summand of
            the magnitude, and a turn of the phase: Kong, Cao, Liu, Choi, Wang 2021, "Decoupling magnitude and phase
            estimation with deep ResUNet for music source separation") or "spectra" (the sources' spectra themselves).
    """

    def __init__(self, num_sources: int, output: str, **kwargs):
        super().__init__(**kwargs)
        self.num_sources = num_sources
        self.output_kind = output

    def call(self, raw, real, imag):
        """Makes spectra.

        Args:
            raw: `[batch, num_sources * numbers * num_channels, num_frames, num_bins]`, for each source its first
                numbers of all channels, then its second, ...
            real: the mixture's, `[batch, num_channels, num_frames, num_bins]`.
            imag: likewise.

        Returns:
            Two of `[batch, num_sources * num_channels, num_frames, num_bins]`.
        """
        if self.output_kind == "consistent_mask":
            # Over an axis, for the reason that `OverSources` gives.
            batch, channels, *axes = ops.shape(raw)
            grouped = ops.reshape(raw, (batch, self.num_sources, channels // self.num_sources, *axes))
            raw = ops.reshape(grouped - ops.mean(grouped, axis=1, keepdims=True), ops.shape(raw))
        parts = ops.split(raw, raw.shape[1] // real.shape[1], axis=1)
        numbers = len(parts) // self.num_sources
        sources = [parts[numbers * index : numbers * (index + 1)] for index in range(self.num_sources)]
        stems = [self._stem(numbers, real, imag) for numbers in sources]
        return tuple(ops.concatenate(part, axis=1) for part in zip(*stems, strict=True))

    def _stem(self, numbers, real, imag):
        share = 1.0 / self.num_sources
        if self.output_kind == "spectra":
            return numbers
        if self.output_kind == "decoupled_mask":
            return self._decoupled(*numbers, real, imag)
        mask_real, mask_imag = numbers[0] + share, numbers[1]
        if self.output_kind == "bounded_mask":
            size = magnitude(mask_real, mask_imag)
            # The hyperbolic tangent is stretched so that `share` stays what it is.
            scale = LARGEST_MASK * ops.tanh(size * (math.atanh(share / LARGEST_MASK) / share)) / size
            mask_real, mask_imag = mask_real * scale, mask_imag * scale
        return mask_real * real - mask_imag * imag, mask_real * imag + mask_imag * real

    def _decoupled(self, factor, cosine, sine, summand, real, imag):
        cosine = cosine + 1.0
        turn = ops.sqrt(ops.square(cosine) + ops.square(sine) + PHASE_FLOOR**2)
        size = magnitude(real, imag)
        factor = ops.sigmoid(factor - math.log(self.num_sources - 1))
        scale = ops.relu(factor * size + summand) / (size * turn)
        cosine, sine = cosine * scale, sine * scale
        return cosine * real - sine * imag, cosine * imag + sine * real

    def compute_output_shape(self, raw_shape, real_shape, imag_shape):
        return ((real_shape[0], self.num_sources * real_shape[1], *real_shape[2:]),) * 2

    def get_config(self):
        return {**super().get_config(), "num_sources": self.num_sources, "output": self.output_kind}

    def memory(self, inputs, outputs, recompute):
        made = sum(tensor.num_bytes for tensor in outputs)
        return {"keeps_inputs": True, "kept": made, "forward": made, "backward": 2 * made}
