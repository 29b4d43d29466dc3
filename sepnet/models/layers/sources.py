"""Layers that make estimates of the sources: masks, remainders, Wiener steps."""

import keras
from keras import ops

from sepnet.models.layers.plain import PlainLayer

POWER_FLOOR = 1e-10


class OverSources(PlainLayer):
    """Base of the layers on estimates: on one axis stand the channels of the first source, of the second, ...

    They add up over an axis, not source by source: of three gradients or more TensorFlow takes the sum in the order in
    which they come, and a run from the same seed would end elsewhere.

    Args:
        axis: -1 in waveforms, 1 in spectra.
    """

    def __init__(self, axis: int = -1, **kwargs):
        super().__init__(**kwargs)
        self.axis = axis

    def by_source(self, estimates, num_channels: int):
        """The estimates with an axis for the sources, and its place, which the channels follow."""
        shape = ops.shape(estimates)
        place = self.axis % len(shape)
        return ops.reshape(estimates, (*shape[:place], -1, num_channels, *shape[place + 1 :])), place

    def times(self, estimates, mixture):
        """The estimates of every source times the mixture."""
        grouped, place = self.by_source(estimates, mixture.shape[self.axis])
        return ops.reshape(grouped * ops.expand_dims(mixture, place), ops.shape(estimates))

    def get_config(self):
        return {**super().get_config(), "axis": self.axis}


@keras.saving.register_keras_serializable(package="sepnet")
class Masks(OverSources):
    """Numbers from 0 to 1 for each source: sigmoids ("mask"), or a softmax over the sources ("softmax_mask").

    Args:
        num_sources: number of sources.
        output: which of them.
    """

    def __init__(self, num_sources: int, output: str, **kwargs):
        super().__init__(**kwargs)
        self.num_sources = num_sources
        self.output_kind = output

    def call(self, raw):
        if self.output_kind == "mask":
            return ops.sigmoid(raw)
        grouped, place = self.by_source(raw, raw.shape[self.axis] // self.num_sources)
        # Keras' own softmax moves the axis to the end and back, which takes more than twice as long. Nothing depends on
        # the largest value, but without it large numbers would have no exponential.
        powers = ops.exp(grouped - ops.stop_gradient(ops.max(grouped, axis=place, keepdims=True)))
        return ops.reshape(powers / ops.sum(powers, axis=place, keepdims=True), ops.shape(raw))

    def compute_output_shape(self, raw_shape):
        return raw_shape

    def get_config(self):
        return {**super().get_config(), "num_sources": self.num_sources, "output": self.output_kind}

    def memory(self, inputs, outputs, recompute):
        made = outputs[0].num_bytes
        return {"kept": made, "forward": made, "backward": made}


@keras.saving.register_keras_serializable(package="sepnet")
class ApplyMasks(OverSources):
    """Multiplies the masks of every source with the mixture, or with the two parts of its spectrum."""

    def call(self, masks, mixture, imag=None):
        product = self.times(masks, mixture)
        return product if imag is None else (product, self.times(masks, imag))

    def compute_output_shape(self, masks_shape, mixture_shape, imag_shape=None):
        return masks_shape if imag_shape is None else (masks_shape,) * 2


@keras.saving.register_keras_serializable(package="sepnet")
class Remainder(OverSources):
    """Appends what the sources before it leave of the mixture, so that all of them add up to it."""

    def call(self, others, mixture):
        grouped, place = self.by_source(others, mixture.shape[self.axis])
        return ops.concatenate([others, mixture - ops.sum(grouped, axis=place)], axis=self.axis)

    def compute_output_shape(self, others_shape, mixture_shape):
        shape = list(mixture_shape)
        shape[self.axis] += others_shape[self.axis]
        return tuple(shape)


@keras.saving.register_keras_serializable(package="sepnet")
class Clip(PlainLayer):
    """Cuts waveforms at full scale, from -1 to 1."""

    def call(self, estimates):
        return ops.clip(estimates, -1.0, 1.0)

    def compute_output_shape(self, estimates_shape):
        return estimates_shape


@keras.saving.register_keras_serializable(package="sepnet")
class WienerStep(OverSources):
    """Shares the mixture's magnitudes out in proportion to the powers of the estimates, so that these add up to it.

    Reference: Liutkus and Badeau 2015, "Generalized Wiener filtering with fractional power spectrograms", with power 2
    and each channel by itself.
    """

    def call(self, magnitudes, mixture):
        grouped, place = self.by_source(magnitudes, mixture.shape[self.axis])
        # Where all estimates are silent, all take the same share.
        powers = ops.square(grouped) + POWER_FLOOR
        shares = powers / ops.sum(powers, axis=place, keepdims=True)
        return ops.reshape(shares * ops.expand_dims(mixture, place), ops.shape(magnitudes))

    def compute_output_shape(self, magnitudes_shape, mixture_shape):
        return magnitudes_shape

    def memory(self, inputs, outputs, recompute):
        made = outputs[0].num_bytes
        # Powers, shares and the mixture for each source.
        return {"kept": 3 * made, "forward": made, "backward": 3 * made}


@keras.saving.register_keras_serializable(package="sepnet")
class SplitSources(PlainLayer):
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
