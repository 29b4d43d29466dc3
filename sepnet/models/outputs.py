"""From the last convolution to estimates of the sources, on waveforms or on magnitudes."""

from collections.abc import Sequence

import keras
from keras import ops


def num_outputs(sources: Sequence[str], output: str) -> int:
    """How many sources the last convolution gives: with "difference", the last one follows from the others."""
    return len(sources) - (output == "difference")


@keras.saving.register_keras_serializable(package="sepnet")
class Estimates(keras.layers.Layer):
    """Turns the channels of the last convolution into estimates.

    Args:
        num_sources: number of sources.
        output: "direct" (as they are), "difference" (the last source is the mixture less the others), "mask" (a
            sigmoid times the mixture) or "softmax_mask" (masks that add up to one over the sources).
    """

    def __init__(self, num_sources: int, output: str, **kwargs):
        super().__init__(**kwargs)
        self.num_sources = num_sources
        self.output_kind = output

    def call(self, raw, mixture):
        """Applies the output.

        Args:
            raw: `[batch, axes..., num_outputs * num_channels]`, the sources one after the other.
            mixture: `[batch, axes..., num_channels]`, waveform or magnitudes.

        Returns:
            `[batch, axes..., num_sources * num_channels]`.
        """
        if self.output_kind == "direct":
            return raw
        if self.output_kind == "difference":
            others = ops.split(raw, self.num_sources - 1, axis=-1)
            return ops.concatenate([*others, mixture - sum(others)], axis=-1)
        if self.output_kind == "mask":
            return ops.sigmoid(raw) * ops.concatenate([mixture] * self.num_sources, axis=-1)
        masks = ops.softmax(ops.stack(ops.split(raw, self.num_sources, axis=-1), axis=-1), axis=-1)
        return ops.concatenate([masks[..., source] * mixture for source in range(self.num_sources)], axis=-1)

    def compute_output_shape(self, raw_shape, mixture_shape):
        return (*mixture_shape[:-1], self.num_sources * mixture_shape[-1])

    def get_config(self):
        return {**super().get_config(), "num_sources": self.num_sources, "output": self.output_kind}


@keras.saving.register_keras_serializable(package="sepnet")
class SplitSources(keras.layers.Layer):
    """Splits `[batch, num_samples, num_sources * num_channels]` into a dict of one tensor for each source."""

    def __init__(self, sources: list[str], **kwargs):
        super().__init__(**kwargs)
        self.sources = sources

    def call(self, stacked):
        return dict(zip(self.sources, ops.split(stacked, len(self.sources), axis=-1), strict=True))

    def compute_output_shape(self, stacked_shape):
        return {source: (*stacked_shape[:-1], stacked_shape[-1] // len(self.sources)) for source in self.sources}

    def get_config(self):
        return {**super().get_config(), "sources": self.sources}
