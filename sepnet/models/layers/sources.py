"""Layers that make estimates of the sources: masks, remainders, Wiener steps."""

import keras
from keras import ops

from sepnet.models.layers.plain import PlainLayer

POWER_FLOOR = 1e-10


@keras.saving.register_keras_serializable(package="sepnet")
class Masks(PlainLayer):
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

    def memory(self, inputs, outputs, recompute):
        made = outputs[0].num_bytes
        return {"kept": made, "forward": made, "backward": made}


@keras.saving.register_keras_serializable(package="sepnet")
class ApplyMasks(PlainLayer):
    """Multiplies masks `[..., num_sources * num_channels]` with the mixture `[..., num_channels]`."""

    runs_early = True

    def call(self, masks, mixture):
        return masks * ops.concatenate([mixture] * (masks.shape[-1] // mixture.shape[-1]), axis=-1)

    def compute_output_shape(self, masks_shape, mixture_shape):
        return (*mixture_shape[:-1], masks_shape[-1])

    def memory(self, inputs, outputs, recompute):
        return {"kept": outputs[0].num_bytes}


@keras.saving.register_keras_serializable(package="sepnet")
class Remainder(PlainLayer):
    """Appends what the sources before it leave of the mixture, so that all of them add up to it."""

    def call(self, others, mixture):
        num_others = others.shape[-1] // mixture.shape[-1]
        return ops.concatenate([others, mixture - sum(ops.split(others, num_others, axis=-1))], axis=-1)

    def compute_output_shape(self, others_shape, mixture_shape):
        return (*mixture_shape[:-1], others_shape[-1] + mixture_shape[-1])


@keras.saving.register_keras_serializable(package="sepnet")
class WienerStep(PlainLayer):
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
