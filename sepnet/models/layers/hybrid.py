"""Layers of the hybrid U-Net: packing, gates, scaled branches, and ways between frames and blocks of samples."""

import keras
from keras import ops

from sepnet.models.layers.plain import PlainLayer

# Frames of an STFT whose window is four steps long, beyond one for each step of the signal.
EXTRA_FRAMES = 3


@keras.saving.register_keras_serializable(package="sepnet")
class SpaceToDepth(PlainLayer):
    """Makes neighbours on the last axis before the channels channels: frequency in spectra, time in waveforms.

    Args:
        factor: so many; divides the length of the axis.
    """

    def __init__(self, factor: int, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, inputs):
        *_, length, channels = ops.shape(inputs)
        return ops.reshape(inputs, (*ops.shape(inputs)[:-2], length // self.factor, channels * self.factor))

    def compute_output_shape(self, input_shape):
        *others, length, channels = input_shape
        return (*others, None if length is None else length // self.factor, channels * self.factor)

    def reach(self, first, last, inputs, outputs):
        in_time = len(inputs[0].shape) == 3
        return [(first * self.factor, last * self.factor + self.factor - 1) if in_time else (first, last)]

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


@keras.saving.register_keras_serializable(package="sepnet")
class DepthToSpace(SpaceToDepth):
    """The way back; a convolution before it is one that is transposed, and takes less time and memory."""

    def call(self, inputs):
        *_, length, channels = ops.shape(inputs)
        return ops.reshape(inputs, (*ops.shape(inputs)[:-2], length * self.factor, channels // self.factor))

    def compute_output_shape(self, input_shape):
        *others, length, channels = input_shape
        return (*others, None if length is None else length * self.factor, channels // self.factor)

    def reach(self, first, last, inputs, outputs):
        in_time = len(inputs[0].shape) == 3
        return [(first // self.factor, last // self.factor) if in_time else (first, last)]


@keras.saving.register_keras_serializable(package="sepnet")
class Gate(PlainLayer):
    """The first half of the channels, times the sigmoid of the second (Dauphin, Fan, Auli, Grangier 2017)."""

    def call(self, inputs):
        values, gates = ops.split(inputs, 2, axis=-1)
        return values * ops.sigmoid(gates)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], input_shape[-1] // 2)

    def memory(self, inputs, outputs, recompute):
        made = outputs[0].num_bytes
        return {"keeps_inputs": True, "kept": made, "forward": made, "backward": made}


@keras.saving.register_keras_serializable(package="sepnet")
class ScaledSum(PlainLayer):
    """Adds to the first input the second, times a trained number for each channel, which begins at 0.001.

    Reference: Touvron et al. 2021, "Going deeper with image transformers" ("LayerScale").
    """

    def build(self, inputs_shape, branch_shape):
        self.scale = self.add_weight(shape=branch_shape[-1:], initializer=keras.initializers.Constant(1e-3))

    def call(self, inputs, branch):
        return inputs + branch * self.scale

    def compute_output_shape(self, inputs_shape, branch_shape):
        return inputs_shape

    def memory(self, inputs, outputs, recompute):
        return {"kept": inputs[1].num_bytes, "forward": outputs[0].num_bytes, "backward": outputs[0].num_bytes}


@keras.saving.register_keras_serializable(package="sepnet")
class FrequencyEmbedding(PlainLayer):
    """Adds trained numbers of every bin and channel: convolutions along frequency cannot tell low from high."""

    # So that they move faster than their gradients alone would make them.
    FACTOR = 0.2

    def build(self, input_shape):
        self.embedding = self.add_weight(shape=input_shape[2:], initializer="random_normal", name="embedding")

    def call(self, inputs):
        return inputs + self.FACTOR * self.embedding

    def compute_output_shape(self, input_shape):
        return input_shape


@keras.saving.register_keras_serializable(package="sepnet")
class FramesToBlocks(PlainLayer):
    """Gives each step of the signal the mean of the two frames whose centres enclose it; the frames have one bin."""

    def call(self, inputs):
        frames = inputs[:, :, 0]
        return 0.5 * (frames[:, 1:-2] + frames[:, 2:-1])

    def compute_output_shape(self, input_shape):
        batch, num_frames, _, channels = input_shape
        return (batch, None if num_frames is None else num_frames - EXTRA_FRAMES, channels)

    def reach(self, first, last, inputs, outputs):
        return [(first + 1, last + 2)]


@keras.saving.register_keras_serializable(package="sepnet")
class BlocksToFrames(PlainLayer):
    """The way back: gives each frame the mean of the two steps on both sides of its centre, in one bin."""

    def call(self, inputs):
        padded = ops.pad(inputs, [(0, 0), (2, 2), (0, 0)])
        return ops.expand_dims(0.5 * (padded[:, :-1] + padded[:, 1:]), axis=2)

    def compute_output_shape(self, input_shape):
        batch, num_blocks, channels = input_shape
        return (batch, None if num_blocks is None else num_blocks + EXTRA_FRAMES, 1, channels)

    def reach(self, first, last, inputs, outputs):
        return [(first - 2, last - 1)]


@keras.saving.register_keras_serializable(package="sepnet")
class AddShare(PlainLayer):
    """Adds to the estimates of each source the mixture divided by their number, `[..., num_sources * num_channels]`."""

    def call(self, estimates, mixture):
        num_sources = estimates.shape[-1] // mixture.shape[-1]
        return estimates + ops.concatenate([mixture / num_sources] * num_sources, axis=-1)

    def compute_output_shape(self, estimates_shape, mixture_shape):
        return estimates_shape
