"""The blocks that U-Nets of either rank are made of: convolutions, and ways to halve and to double an axis.

Features are `[batch, num_samples, channels]` for rank 1 and `[batch, num_frames, num_bins, channels]` for rank 2.
Every block moves with its input: shifted by one step of its grid, it gives the same values, shifted. That is what
lets long songs be separated block by block without seams.
"""

import dataclasses

import keras
from keras import ops

CONVOLUTIONS = {1: keras.layers.Conv1D, 2: keras.layers.Conv2D}
TRANSPOSED_CONVOLUTIONS = {1: keras.layers.Conv1DTranspose, 2: keras.layers.Conv2DTranspose}
AVERAGE_POOLINGS = {1: keras.layers.AveragePooling1D, 2: keras.layers.AveragePooling2D}
ACTIVATIONS = {
    "leaky_relu": lambda name: keras.layers.LeakyReLU(negative_slope=0.2, name=name),
    "relu": lambda name: keras.layers.ReLU(name=name),
    "elu": lambda name: keras.layers.ELU(name=name),
}


@dataclasses.dataclass(frozen=True)
class BlockStyle:
    """How the blocks of a U-Net are made; the options are those of `sepnet.config`.

    Attributes:
        rank: 1 for waveforms, 2 for spectrograms.
        down_kernel_size: kernel of the convolutions on the way down and of the bottleneck, along every axis.
        up_kernel_size: kernel of the convolutions on the way up.
        downsampling: "decimate" (every second value), "strided" (by the convolution) or "pooled" (averages of two).
        upsampling: "linear" (interpolation) or "transposed" (by the convolution).
        normalization: "none" or "batch".
        activation: "leaky_relu", "relu" or "elu".
    """

    rank: int
    down_kernel_size: int
    up_kernel_size: int
    downsampling: str
    upsampling: str
    normalization: str
    activation: str


def down_block(features, filters: int, style: BlockStyle, name: str):
    """One level down.

    Returns:
        The features that the way up will see again, and the features at half the resolution.
    """
    if style.downsampling == "strided":
        return features, _convolve(features, filters, style.down_kernel_size, style, name, strides=2)
    skip = _convolve(features, filters, style.down_kernel_size, style, name)
    if style.downsampling == "decimate":
        return skip, Decimate(name=f"{name}_decimate")(skip)
    return skip, AVERAGE_POOLINGS[style.rank](2, name=f"{name}_pool")(skip)


def up_block(features, skip, filters: int, style: BlockStyle, name: str):
    """One level up: doubles the resolution and joins the features that the way down had there."""
    if style.upsampling == "transposed":
        features = TRANSPOSED_CONVOLUTIONS[style.rank](
            filters, style.up_kernel_size, strides=2, padding="same", name=f"{name}_upsample"
        )(features)
        features = _normalize_and_activate(features, style, f"{name}_upsample")
        return keras.layers.Concatenate(name=f"{name}_join")([features, skip])
    features = LinearUpsample(name=f"{name}_upsample")(features)
    features = keras.layers.Concatenate(name=f"{name}_join")([features, skip])
    return _convolve(features, filters, style.up_kernel_size, style, name)


def bottleneck(features, filters: int, style: BlockStyle):
    """The convolution below the last level."""
    return _convolve(features, filters, style.down_kernel_size, style, "bottleneck")


def _convolve(features, filters: int, kernel_size: int, style: BlockStyle, name: str, strides: int = 1):
    features = CONVOLUTIONS[style.rank](
        filters,
        kernel_size,
        strides=strides,
        padding="same",
        use_bias=style.normalization == "none",
        name=f"{name}_conv",
    )(features)
    return _normalize_and_activate(features, style, name)


def _normalize_and_activate(features, style: BlockStyle, name: str):
    if style.normalization == "batch":
        features = keras.layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")(features)
    return ACTIVATIONS[style.activation](f"{name}_{style.activation}")(features)


@keras.saving.register_keras_serializable(package="sepnet")
class Decimate(keras.layers.Layer):
    """Keeps every second value along each axis between batch and channels."""

    def call(self, inputs):
        return inputs[:, ::2] if len(inputs.shape) == 3 else inputs[:, ::2, ::2]

    def compute_output_shape(self, input_shape):
        halves = [size if size is None else -(-size // 2) for size in input_shape[1:-1]]
        return (input_shape[0], *halves, input_shape[-1])


@keras.saving.register_keras_serializable(package="sepnet")
class LinearUpsample(keras.layers.Layer):
    """Doubles each axis between batch and channels: the values themselves, and the means of neighbours between them.

    The last value is held. (Wave-U-Net resizes with aligned corners, which moves the grid with the length.)
    """

    def call(self, inputs):
        for axis in range(1, len(inputs.shape) - 1):
            inputs = self._double(inputs, axis)
        return inputs

    def _double(self, inputs, axis: int):
        length = ops.shape(inputs)[axis]
        following = ops.concatenate(
            [ops.take(inputs, ops.arange(1, length), axis=axis), ops.take(inputs, [length - 1], axis=axis)], axis=axis
        )
        doubled = ops.stack([inputs, (inputs + following) / 2], axis=axis + 1)
        shape = list(ops.shape(inputs))
        shape[axis] = 2 * length
        return ops.reshape(doubled, shape)

    def compute_output_shape(self, input_shape):
        doubled = [size if size is None else 2 * size for size in input_shape[1:-1]]
        return (input_shape[0], *doubled, input_shape[-1])


@keras.saving.register_keras_serializable(package="sepnet")
class PadToGrid(keras.layers.Layer):
    """Appends zeros to each axis between batch and channels, up to the next multiple of `grid`."""

    def __init__(self, grid: int, **kwargs):
        super().__init__(**kwargs)
        self.grid = grid

    def call(self, inputs):
        shape = ops.shape(inputs)
        padding = [(0, -shape[axis] % self.grid) for axis in range(1, len(inputs.shape) - 1)]
        return ops.pad(inputs, [(0, 0), *padding, (0, 0)])

    def compute_output_shape(self, input_shape):
        padded = [size if size is None else size + -size % self.grid for size in input_shape[1:-1]]
        return (input_shape[0], *padded, input_shape[-1])

    def get_config(self):
        return {**super().get_config(), "grid": self.grid}


@keras.saving.register_keras_serializable(package="sepnet")
class CropLike(keras.layers.Layer):
    """Cuts each axis between batch and channels to the length that the second input has there."""

    def call(self, inputs, reference):
        shape = ops.shape(reference)
        inputs = inputs[:, : shape[1]]
        return inputs if len(inputs.shape) == 3 else inputs[:, :, : shape[2]]

    def compute_output_shape(self, inputs_shape, reference_shape):
        return (*reference_shape[:-1], inputs_shape[-1])
