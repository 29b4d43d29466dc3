"""From the last convolution to estimates of the sources, on waveforms or on magnitudes."""

from collections.abc import Callable, Sequence

import keras
from keras import ops

MASKS = ("mask", "softmax_mask")
POWER_FLOOR = 1e-10


def num_outputs(sources: Sequence[str], output: str) -> int:
    """How many sources the last convolution gives: with "difference", the last one follows from the others."""
    return len(sources) - (output == "difference")


def one_or_each(network: Callable, features, *, num_outputs: int, num_channels: int, separate: bool):
    """Runs one network for all outputs, or one for each.

    Args:
        network: `(features, channels) -> raw`, makes new layers at each call.
        features: what every network sees.
        num_outputs: sources to give.
        num_channels: audio channels of each.
        separate: one for each.

    Returns:
        `[batch, axes..., num_outputs * num_channels]`.
    """
    if not separate:
        return network(features, num_outputs * num_channels)
    outputs = []
    for index in range(num_outputs):
        inputs = keras.Input(features.shape[1:], dtype=features.dtype)
        outputs.append(keras.Model(inputs, network(inputs, num_channels), name=f"network_{index}")(features))
    return keras.layers.Concatenate(dtype="float32", name="join_networks")(outputs)


def estimates(raw, mixture, *, num_sources: int, output: str, carry: Callable = lambda features: features):
    """Turns the channels of the last convolution into estimates.

    Args:
        raw: `[batch, axes..., num_outputs * num_channels]`, the sources one after the other.
        mixture: `[batch, axes..., num_channels]`, waveform or magnitudes.
        num_sources: number of sources.
        output: "direct" (as they are), "difference" (the last source is the mixture less the others), "mask" (a
            sigmoid times the mixture) or "softmax_mask" (masks that add up to one over the sources).
        carry: brings masks, or `raw` itself, to the axes of the mixture where they have others.

    Returns:
        `[batch, axes..., num_sources * num_channels]`.
    """
    if output in MASKS:
        masks = carry(Masks(num_sources, output, dtype="float32", name="masks")(raw))
        return ApplyMasks(dtype="float32", name="estimates")(masks, mixture)
    raw = carry(raw)
    return Remainder(dtype="float32", name="estimates")(raw, mixture) if output == "difference" else raw


@keras.saving.register_keras_serializable(package="sepnet")
class Masks(keras.layers.Layer):
    """Numbers from 0 to 1 for each source: sigmoids ("mask"), or a softmax over the sources ("softmax_mask")."""

    def __init__(self, num_sources: int, output: str, **kwargs):
        super().__init__(**kwargs)
        self.num_sources = num_sources
        self.output_kind = output

    def call(self, raw):
        if self.output_kind == "mask":
            return ops.sigmoid(raw)
        masks = ops.softmax(ops.stack(ops.split(raw, self.num_sources, axis=-1), axis=-1), axis=-1)
        return ops.concatenate([masks[..., source] for source in range(self.num_sources)], axis=-1)

    def compute_output_shape(self, raw_shape):
        return raw_shape

    def get_config(self):
        return {**super().get_config(), "num_sources": self.num_sources, "output": self.output_kind}


@keras.saving.register_keras_serializable(package="sepnet")
class ApplyMasks(keras.layers.Layer):
    """Multiplies masks `[..., num_sources * num_channels]` with the mixture `[..., num_channels]`."""

    def call(self, masks, mixture):
        return masks * ops.concatenate([mixture] * (masks.shape[-1] // mixture.shape[-1]), axis=-1)

    def compute_output_shape(self, masks_shape, mixture_shape):
        return (*mixture_shape[:-1], masks_shape[-1])


@keras.saving.register_keras_serializable(package="sepnet")
class Remainder(keras.layers.Layer):
    """Appends what the sources before it leave of the mixture, so that all of them add up to it."""

    def call(self, others, mixture):
        num_others = others.shape[-1] // mixture.shape[-1]
        return ops.concatenate([others, mixture - sum(ops.split(others, num_others, axis=-1))], axis=-1)

    def compute_output_shape(self, others_shape, mixture_shape):
        return (*mixture_shape[:-1], others_shape[-1] + mixture_shape[-1])


@keras.saving.register_keras_serializable(package="sepnet")
class WienerStep(keras.layers.Layer):
    """Shares the mixture's magnitudes out in proportion to the powers of the estimates, so that these add up to it.

    Reference: Liutkus and Badeau 2015, "Generalized Wiener filtering with fractional power spectrograms", with power 2
    and each channel by itself.
    """

    def call(self, magnitudes, mixture):
        num_sources = magnitudes.shape[-1] // mixture.shape[-1]
        powers = [ops.square(source) for source in ops.split(magnitudes, num_sources, axis=-1)]
        # Where all estimates are silent, all take the same share.
        total = sum(powers) + num_sources * POWER_FLOOR
        return ops.concatenate([(power + POWER_FLOOR) / total * mixture for power in powers], axis=-1)

    def compute_output_shape(self, magnitudes_shape, mixture_shape):
        return magnitudes_shape


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
