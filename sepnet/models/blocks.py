"""The blocks that U-Nets of either rank are made of: convolutions, and ways to halve and to double an axis.

Features are `[batch, num_samples, channels]` for rank 1 and `[batch, num_frames, num_bins, channels]` for rank 2.
Every block moves with its input: shifted by one step of its grid, it gives the same values, shifted. That is what
lets long songs be separated block by block without seams. (Group normalisation alone does not: it looks at all of
its input.)
"""

import dataclasses
import math

import keras
import numpy as np
from keras import ops

CONVOLUTIONS = {1: keras.layers.Conv1D, 2: keras.layers.Conv2D}
TRANSPOSED_CONVOLUTIONS = {1: keras.layers.Conv1DTranspose, 2: keras.layers.Conv2DTranspose}
POOLINGS = {
    "pooled": {1: keras.layers.AveragePooling1D, 2: keras.layers.AveragePooling2D},
    "max_pooled": {1: keras.layers.MaxPooling1D, 2: keras.layers.MaxPooling2D},
}
MAX_GROUPS = 8
# Short runs must not end before the moving averages of batch normalisation have arrived.
BATCH_MOMENTUM = 0.9
NORMALIZATIONS = {
    "none": lambda filters, momentum: None,
    "batch": lambda filters, momentum: keras.layers.BatchNormalization(momentum=momentum),
    "group": lambda filters, momentum: keras.layers.GroupNormalization(math.gcd(filters, MAX_GROUPS)),
}
ACTIVATIONS = {
    "leaky_relu": lambda: keras.layers.LeakyReLU(negative_slope=0.2),
    "relu": keras.layers.ReLU,
    "elu": keras.layers.ELU,
}
# Half-band low-pass: a sinc of 15 taps under a Hann window, 6 dB down at a quarter of the sample rate.
LOW_PASS = np.sinc(np.arange(-7, 8) / 2) * np.hanning(17)[1:-1]


@dataclasses.dataclass(frozen=True)
class BlockStyle:
    """How the blocks of a U-Net are made; the options are those of `sepnet.config.sections`.

    Attributes:
        rank: 1 for waveforms, 2 for spectrograms.
        down_kernel_size: kernel of the convolutions on the way down and of the bottleneck, along every axis.
        up_kernel_size: kernel of the convolutions on the way up.
        convolutions: how many follow each other in every block.
        downsampling: "decimate" (every second value), "filtered" (low-pass, then every second value; Zhang 2019,
            "Making convolutional networks shift-invariant again"), "strided" (by the convolution), "pooled" (averages
            of two) or "max_pooled" (the larger of two).
        upsampling: "linear" (interpolation), "learned" (interpolation with weights of its own for each feature) or
            "transposed" (by a convolution).
        upsampling_kernel_size: kernel of "transposed"; None for that of the way up.
        normalization: "none", "batch" or "group".
        activation: "leaky_relu", "relu" or "elu".
        up_activation: that of the way up; None for the same.
        dropout: share of features that is dropped on the way up in training.
        recompute: activations inside of convolutions are computed again for the gradient instead of kept.
        padding: "zero", or "context": convolutions without padding, whose output is shorter than their input.
    """

    rank: int
    down_kernel_size: int
    up_kernel_size: int
    convolutions: int
    downsampling: str
    upsampling: str
    upsampling_kernel_size: int | None
    normalization: str
    activation: str
    up_activation: str | None
    dropout: float
    recompute: bool
    padding: str = "zero"

    @property
    def is_local(self) -> bool:
        """Whether an output value depends only on inputs near it."""
        return self.normalization != "group"

    def on_the_way_up(self) -> "BlockStyle":
        """The style whose `activation` is that of the way up."""
        return dataclasses.replace(self, activation=self.up_activation or self.activation)


def down_block(features, filters: int, style: BlockStyle, name: str):
    """One level down.

    Returns:
        The features that the way up will see again, and the features at half the resolution.
    """
    if style.downsampling == "strided":
        skip = _convolutions(features, filters, style.down_kernel_size, style, name, style.convolutions - 1)
        return skip, _convolve(skip, filters, style.down_kernel_size, style, f"{name}_strided", strides=2)
    skip = _convolutions(features, filters, style.down_kernel_size, style, name, style.convolutions)
    if style.downsampling in POOLINGS:
        return skip, POOLINGS[style.downsampling][style.rank](2, name=f"{name}_pool")(skip)
    lowered = skip
    if style.downsampling == "filtered":
        lowered = LowPass(style.padding == "context", name=f"{name}_low_pass")(skip)
    return skip, Decimate(name=f"{name}_decimate")(lowered)


def up_block(features, skip, filters: int, style: BlockStyle, name: str):
    """One level up: doubles the resolution and joins the features that the way down had there."""
    if style.upsampling == "transposed":
        kernel_size = style.upsampling_kernel_size or style.up_kernel_size
        features = TRANSPOSED_CONVOLUTIONS[style.rank](
            filters, kernel_size, strides=2, padding="same", name=f"{name}_upsample"
        )(features)
    else:
        has_context = style.padding == "context"
        features = Upsample(style.upsampling == "learned", has_context, name=f"{name}_upsample")(features)
        skip = CropCenter(name=f"{name}_crop")(skip, features) if has_context else skip
    features = keras.layers.Concatenate(name=f"{name}_join")([features, skip])
    features = _convolutions(features, filters, style.up_kernel_size, style.on_the_way_up(), name, style.convolutions)
    return keras.layers.Dropout(style.dropout, name=f"{name}_dropout")(features) if style.dropout else features


def bottleneck(features, filters: int, style: BlockStyle):
    """The convolutions below the last level."""
    return _convolutions(features, filters, style.down_kernel_size, style, "bottleneck", style.convolutions)


def _convolutions(features, filters: int, kernel_size: int, style: BlockStyle, name: str, count: int):
    for index in range(count):
        features = _convolve(features, filters, kernel_size, style, f"{name}_{index}" if count > 1 else name)
    return features


def _convolve(features, filters: int, kernel_size: int, style: BlockStyle, name: str, strides: int = 1):
    return Convolution(
        rank=style.rank,
        filters=filters,
        kernel_size=kernel_size,
        strides=strides,
        padding="valid" if style.padding == "context" else "same",
        normalization=style.normalization,
        activation=style.activation,
        recompute=style.recompute,
        name=name,
    )(features)


def make_normalization(name: str, filters: int, recompute: bool):
    """A layer by its name in `NORMALIZATIONS`; None for "none"."""
    # TensorFlow computes, and moves the averages, twice in a step: both together then move them as far as one does.
    twice = recompute and keras.backend.backend() == "tensorflow"
    return NORMALIZATIONS[name](filters, math.sqrt(BATCH_MOMENTUM) if twice else BATCH_MOMENTUM)


@keras.saving.register_keras_serializable(package="sepnet")
class Convolution(keras.layers.Layer):
    """A convolution, its normalisation and its activation.

    Args:
        rank: 1 or 2.
        filters: features that it gives.
        kernel_size: along every axis.
        strides: along every axis.
        padding: "same" or "valid".
        normalization: "none", "batch" or "group".
        activation: "leaky_relu", "relu" or "elu".
        recompute: what lies between its input and its output is not kept for the gradient but computed once more
            (Chen, Xu, Zhang, Guestrin 2016, arXiv 1604.06174).
    """

    def __init__(self, *, rank, filters, kernel_size, strides, padding, normalization, activation, recompute, **kwargs):
        super().__init__(**kwargs)
        self.settings = {
            "rank": rank,
            "filters": filters,
            "kernel_size": kernel_size,
            "strides": strides,
            "padding": padding,
            "normalization": normalization,
            "activation": activation,
            "recompute": recompute,
        }
        self.recompute = recompute
        self.convolution = CONVOLUTIONS[rank](
            filters, kernel_size, strides=strides, padding=padding, use_bias=normalization == "none"
        )
        self.normalization = make_normalization(normalization, filters, recompute)
        self.activation = ACTIVATIONS[activation]()

    def build(self, input_shape):
        self.convolution.build(input_shape)
        if self.normalization is not None:
            self.normalization.build(self.convolution.compute_output_shape(input_shape))

    def call(self, inputs, training=False):
        if self.recompute and training:
            return keras.remat(lambda features: self._apply(features, training))(inputs)
        return self._apply(inputs, training)

    def _apply(self, features, training):
        features = self.convolution(features)
        if self.normalization is not None:
            features = self.normalization(features, training=training)
        return self.activation(features)

    def compute_output_shape(self, input_shape):
        return self.convolution.compute_output_shape(input_shape)

    def get_config(self):
        return {**super().get_config(), **self.settings}


@keras.saving.register_keras_serializable(package="sepnet")
class NormalizedActivation(keras.layers.Layer):
    """A normalisation and an activation, in this order or the other.

    Args:
        filters: features that come in.
        normalization: "none", "batch" or "group".
        activation: "leaky_relu", "relu" or "elu".
        activation_first: the other order.
        recompute: only the input is kept for the gradient.
    """

    def __init__(self, *, filters, normalization, activation, activation_first, recompute, **kwargs):
        super().__init__(**kwargs)
        self.settings = {
            "filters": filters,
            "normalization": normalization,
            "activation": activation,
            "activation_first": activation_first,
            "recompute": recompute,
        }
        self.recompute = recompute
        self.normalization = make_normalization(normalization, filters, recompute)
        self.activation = ACTIVATIONS[activation]()
        self.activation_first = activation_first

    def build(self, input_shape):
        if self.normalization is not None:
            self.normalization.build(input_shape)

    def call(self, inputs, training=False):
        if self.recompute and training:
            return keras.remat(lambda features: self._apply(features, training))(inputs)
        return self._apply(inputs, training)

    def _apply(self, features, training):
        if self.activation_first:
            features = self.activation(features)
        if self.normalization is not None:
            features = self.normalization(features, training=training)
        return features if self.activation_first else self.activation(features)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), **self.settings}


@keras.saving.register_keras_serializable(package="sepnet")
class Decimate(keras.layers.Layer):
    """Keeps every second value along each axis between batch and channels."""

    def call(self, inputs):
        return inputs[:, ::2] if len(inputs.shape) == 3 else inputs[:, ::2, ::2]

    def compute_output_shape(self, input_shape):
        halves = [size if size is None else -(-size // 2) for size in input_shape[1:-1]]
        return (input_shape[0], *halves, input_shape[-1])


@keras.saving.register_keras_serializable(package="sepnet")
class LowPass(keras.layers.Layer):
    """Removes, along each axis between batch and channels, what decimation by two would fold back.

    Args:
        has_context: an axis of `n` becomes one of `n - 14`, without padding; else zeros are put around it.
    """

    def __init__(self, has_context: bool, **kwargs):
        super().__init__(**kwargs)
        self.has_context = has_context

    def call(self, inputs):
        kernel = ops.cast(LOW_PASS / LOW_PASS.sum(), inputs.dtype)
        for axis in range(len(inputs.shape) - 2):
            shape = [1] * len(inputs.shape)
            shape[axis] = len(LOW_PASS)
            tiled = ops.repeat(ops.reshape(kernel, shape), inputs.shape[-1], axis=-2)
            inputs = ops.depthwise_conv(inputs, tiled, padding="valid" if self.has_context else "same")
        return inputs

    def compute_output_shape(self, input_shape):
        lost = len(LOW_PASS) - 1 if self.has_context else 0
        lengths = [size if size is None else size - lost for size in input_shape[1:-1]]
        return (input_shape[0], *lengths, input_shape[-1])

    def get_config(self):
        return {**super().get_config(), "has_context": self.has_context}


def _cut(inputs, axis: int, start: int | None, stop: int | None):
    """`inputs[start:stop]` along an axis."""
    return inputs[(slice(None),) * axis + (slice(start, stop),)]


@keras.saving.register_keras_serializable(package="sepnet")
class Upsample(keras.layers.Layer):
    """Doubles each axis between batch and channels: the values themselves, and between them means of the neighbours.

    Args:
        learned: the mean has weights of its own for each feature, `w` and `1 - w` with `w` from a sigmoid
            (Wave-U-Net's learned interpolation); else they are equal.
        has_context: nothing follows the last value, so an axis of `n` becomes one of `2 * n - 1`; else the last value
            is held and it becomes one of `2 * n`. (Wave-U-Net resizes with aligned corners there, which moves the
            grid with the length.)
    """

    def __init__(self, learned: bool, has_context: bool, **kwargs):
        super().__init__(**kwargs)
        self.learned = learned
        self.has_context = has_context

    def build(self, input_shape):
        if self.learned:
            shape = (len(input_shape) - 2, input_shape[-1])
            self.weights_before_sigmoid = self.add_weight(shape=shape, initializer="zeros", name="interpolation")

    def call(self, inputs):
        for axis in range(1, len(inputs.shape) - 1):
            share = ops.sigmoid(self.weights_before_sigmoid[axis - 1]) if self.learned else 0.5
            inputs = self._double(inputs, axis, share)
        return inputs

    def _double(self, inputs, axis: int, share):
        following = ops.concatenate([_cut(inputs, axis, 1, None), _cut(inputs, axis, -1, None)], axis=axis)
        doubled = ops.stack([inputs, share * inputs + (1 - share) * following], axis=axis + 1)
        shape = list(ops.shape(inputs))
        shape[axis] = 2 * shape[axis]
        doubled = ops.reshape(doubled, shape)
        return _cut(doubled, axis, None, -1) if self.has_context else doubled

    def compute_output_shape(self, input_shape):
        doubled = [size if size is None else 2 * size - self.has_context for size in input_shape[1:-1]]
        return (input_shape[0], *doubled, input_shape[-1])

    def get_config(self):
        return {**super().get_config(), "learned": self.learned, "has_context": self.has_context}


@keras.saving.register_keras_serializable(package="sepnet")
class CropCenter(keras.layers.Layer):
    """Cuts the second axis to the length that the other input has there, equally at both ends."""

    def call(self, inputs, reference):
        length = ops.shape(reference)[1]
        start = (ops.shape(inputs)[1] - length) // 2
        return inputs[:, start : start + length]

    def compute_output_shape(self, inputs_shape, reference_shape):
        return (inputs_shape[0], reference_shape[1], *inputs_shape[2:])


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
class PadContext(keras.layers.Layer):
    """Puts `context` zeros before and after a waveform, and as many more after it as reach the next valid length.

    Args:
        context: samples that the network is given, and does not give back, at each end.
        first_length: the shortest output of the network.
        grid: its outputs have `first_length`, `first_length + grid`, ... samples.
    """

    def __init__(self, context: int, first_length: int, grid: int, **kwargs):
        super().__init__(**kwargs)
        self.context = context
        self.first_length = first_length
        self.grid = grid

    def call(self, inputs):
        return ops.pad(inputs, [(0, 0), (self.context, self.context + self._missing(ops.shape(inputs)[1])), (0, 0)])

    def _missing(self, num_samples):
        steps = ops.maximum(num_samples - self.first_length + self.grid - 1, 0) // self.grid
        return self.first_length + steps * self.grid - num_samples

    def compute_output_shape(self, input_shape):
        return (input_shape[0], None, input_shape[2])

    def get_config(self):
        sizes = {"context": self.context, "first_length": self.first_length, "grid": self.grid}
        return {**super().get_config(), **sizes}


@keras.saving.register_keras_serializable(package="sepnet")
class CropLike(keras.layers.Layer):
    """Cuts each axis between batch and channels to the length that the second input has there."""

    def call(self, inputs, reference):
        shape = ops.shape(reference)
        inputs = inputs[:, : shape[1]]
        return inputs if len(inputs.shape) == 3 else inputs[:, :, : shape[2]]

    def compute_output_shape(self, inputs_shape, reference_shape):
        return (*reference_shape[:-1], inputs_shape[-1])
