"""Layers along frequency, on features `[batch, num_frames, num_bins, channels]`: each frame by itself."""

import keras
from keras import ops

from sepnet.models.layers.plain import PlainLayer


@keras.saving.register_keras_serializable(package="sepnet")
class Fold(PlainLayer):
    """Splits frequency into bands of equal width, which become channels.

    Convolutions then work on pictures smaller by the number of bands, with kernels that reach as much farther
    (KUIELab's TFC-TDF v3: https://github.com/kuielab/sdx23).

    Args:
        num_bands: divides the number of bins.
    """

    def __init__(self, num_bands: int, **kwargs):
        super().__init__(**kwargs)
        self.num_bands = num_bands

    def call(self, inputs):
        return ops.concatenate(ops.split(inputs, self.num_bands, axis=2), axis=-1)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:2], input_shape[2] // self.num_bands, input_shape[3] * self.num_bands)

    def get_config(self):
        return {**super().get_config(), "num_bands": self.num_bands}


@keras.saving.register_keras_serializable(package="sepnet")
class Unfold(Fold):
    """Puts the bands that `Fold` made channels one above the other again."""

    def call(self, inputs):
        return ops.concatenate(ops.split(inputs, self.num_bands, axis=-1), axis=2)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:2], input_shape[2] * self.num_bands, input_shape[3] // self.num_bands)


@keras.saving.register_keras_serializable(package="sepnet")
class FrequencyDense(PlainLayer):
    """A matrix from the bins of a frame to others, the same for all frames and channels, without a bias.

    Args:
        num_bins: that it gives.
    """

    def __init__(self, num_bins: int, **kwargs):
        super().__init__(**kwargs)
        self.num_bins = num_bins

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[2], self.num_bins), name="kernel")

    def call(self, inputs):
        return ops.einsum("btfc,fg->btgc", inputs, self.kernel)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:2], self.num_bins, input_shape[3])

    def get_config(self):
        return {**super().get_config(), "num_bins": self.num_bins}

    def flops(self, inputs, outputs):
        return 2 * outputs[0].size * inputs[0].shape[2]

    def memory(self, inputs, outputs, recompute):
        moved = inputs[0].num_bytes + outputs[0].num_bytes
        return {"keeps_inputs": True, "forward": moved, "backward": moved}


@keras.saving.register_keras_serializable(package="sepnet")
class FrameNormalization(PlainLayer):
    """Gives every frame mean 0 and variance 1 over bins and channels, then each channel a scale and an offset.

    It sees one frame alone, unlike batch and group normalisation, so a song streamed in blocks is normalised as the
    whole one. (Ba, Kiros, Hinton 2016, "Layer normalization", with scales for channels instead of for all values.)
    """

    EPSILON = 1e-5

    def build(self, input_shape):
        self.gamma = self.add_weight(shape=input_shape[-1:], initializer="ones", name="gamma")
        self.beta = self.add_weight(shape=input_shape[-1:], initializer="zeros", name="beta")

    def call(self, inputs, training=False):
        values = ops.cast(inputs, "float32")
        mean, variance = ops.moments(values, axes=list(range(2, len(inputs.shape))), keepdims=True)
        scale = ops.rsqrt(variance + self.EPSILON) * ops.cast(self.gamma, "float32")
        return ops.cast((values - mean) * scale + ops.cast(self.beta, "float32"), inputs.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape
