"""Between spectra and features, `[batch, num_frames, num_bins, channels]`, and layers on these, frame by frame."""

import keras
from keras import ops

from sepnet.models.layers.plain import PlainLayer


@keras.saving.register_keras_serializable(package="sepnet")
class ToFeatures(PlainLayer):
    """Brings a spectrum, `[batch, channels, num_frames, num_bins]`, into the order that convolutions work on.

    Bands of equal width become channels. Convolutions then work on features smaller by the number of bands, with
    kernels that reach as much farther (KUIELab's TFC-TDF v3: https://github.com/kuielab/sdx23).

    Args:
        num_bands: divides the number of bins; 1 leaves frequency as it is.
    """

    def __init__(self, num_bands: int = 1, **kwargs):
        super().__init__(**kwargs)
        self.num_bands = num_bands

    def call(self, inputs):
        batch, channels, num_frames, num_bins = ops.shape(inputs)
        width = num_bins // self.num_bands
        bands = ops.reshape(inputs, (batch, channels, num_frames, self.num_bands, width))
        features = ops.transpose(bands, (0, 2, 4, 3, 1))
        return ops.reshape(features, (batch, num_frames, width, self.num_bands * channels))

    def compute_output_shape(self, input_shape):
        batch, channels, num_frames, num_bins = input_shape
        return (batch, num_frames, num_bins // self.num_bands, channels * self.num_bands)

    def get_config(self):
        return {**super().get_config(), "num_bands": self.num_bands}


@keras.saving.register_keras_serializable(package="sepnet")
class FromFeatures(ToFeatures):
    """The way back."""

    def call(self, inputs):
        batch, num_frames, width, count = ops.shape(inputs)
        channels = count // self.num_bands
        features = ops.reshape(inputs, (batch, num_frames, width, self.num_bands, channels))
        bands = ops.transpose(features, (0, 4, 1, 3, 2))
        return ops.reshape(bands, (batch, channels, num_frames, self.num_bands * width))

    def compute_output_shape(self, input_shape):
        batch, num_frames, width, count = input_shape
        return (batch, count // self.num_bands, num_frames, width * self.num_bands)


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
