"""Convolutions with their normalisation and activation."""

import math

import keras

from sepnet.models.layers.frequency import FrameNormalization
from sepnet.models.layers.plain import PlainLayer, convolution_reach

CONVOLUTIONS = {1: keras.layers.Conv1D, 2: keras.layers.Conv2D}
TRANSPOSED_CONVOLUTIONS = {1: keras.layers.Conv1DTranspose, 2: keras.layers.Conv2DTranspose}
MAX_GROUPS = 8
# Short runs must not end before the moving averages have arrived.
BATCH_MOMENTUM = 0.9
# The bounds that Ioffe 2017 (arXiv 1702.03275) lets its corrections grow to; from the first step on, since averages
# with this momentum are worth something after ten steps.
RENORM_CLIPPING = {"rmin": 1 / 3, "rmax": 3.0, "dmax": 5.0}
# PyTorch's. It cannot be made up for in other weights, so published networks need the same.
INSTANCE_EPSILON = 1e-5
NORMALIZATIONS = {
    "none": lambda filters: None,
    "renorm": lambda filters: keras.layers.BatchNormalization(
        momentum=BATCH_MOMENTUM, renorm=True, renorm_momentum=BATCH_MOMENTUM, renorm_clipping=RENORM_CLIPPING
    ),
    "batch": lambda filters: keras.layers.BatchNormalization(momentum=BATCH_MOMENTUM),
    "group": lambda filters: keras.layers.GroupNormalization(math.gcd(filters, MAX_GROUPS)),
    "instance": lambda filters: keras.layers.GroupNormalization(filters, epsilon=INSTANCE_EPSILON),
    "frame": lambda filters: FrameNormalization(),
}
# Their statistics are those of the whole input.
NOT_LOCAL = ("group", "instance")
ACTIVATIONS = {
    "leaky_relu": lambda: keras.layers.LeakyReLU(negative_slope=0.2),
    "relu": keras.layers.ReLU,
    "elu": keras.layers.ELU,
    "gelu": lambda: keras.layers.Activation("gelu"),
}


class _Recomputed(PlainLayer):
    """Base of layers that can compute their inside once more for the gradient, instead of keeping it.

    Reference: Chen, Xu, Zhang, Guestrin 2016, arXiv 1604.06174.
    """

    def call(self, inputs, training=False):
        if not (self.recompute and training):
            return self._apply(inputs, training)
        # The second time must find the averages that the first found, and move nothing: what is assigned inside
        # comes out as values, and is assigned here. As arguments they are copied, which weights would be too.
        weights, averages = self.trainable_variables, self.non_trainable_variables

        def apply(features, *values):
            known = [*((weight, weight.value) for weight in weights), *zip(averages, values, strict=True)]
            with keras.StatelessScope(known) as scope:
                features = self._apply(features, training)
            return (features, *map(scope.get_current_value, averages))

        features, *moved = keras.remat(apply)(inputs, *map(keras.ops.copy, averages))
        for average, value in zip(averages, moved, strict=True):
            average.assign(value)
        return features

    @property
    def is_local(self):
        """False with a normalisation whose statistics are those of the whole input."""
        return self.settings["normalization"] not in NOT_LOCAL

    def get_config(self):
        return {**super().get_config(), **self.settings}


@keras.saving.register_keras_serializable(package="sepnet")
class Convolution(_Recomputed):
    """A convolution, its normalisation and its activation.

    Args:
        rank: 1 or 2.
        filters: features that it gives.
        kernel_size: along every axis, or one for each, time first.
        strides: likewise.
        padding: "same" or "valid".
        normalization: "none", "renorm", "batch", "frame", "group" or "instance".
        activation: "leaky_relu", "relu", "elu" or "gelu".
        recompute: what lies between its input and its output is computed once more for the gradient.
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
        self.normalization = NORMALIZATIONS[normalization](filters)
        self.activation = ACTIVATIONS[activation]()

    def build(self, input_shape):
        self.convolution.build(input_shape)
        if self.normalization is not None:
            self.normalization.build(self.convolution.compute_output_shape(input_shape))

    def _apply(self, features, training):
        features = self.convolution(features)
        if self.normalization is not None:
            features = self.normalization(features, training=training)
        return self.activation(features)

    def compute_output_shape(self, input_shape):
        return self.convolution.compute_output_shape(input_shape)

    def reach(self, first, last, inputs, outputs):
        sizes = self.convolution.kernel_size[0], self.convolution.strides[0]
        return convolution_reach(first, last, inputs[0].shape[1], *sizes, self.settings["padding"])

    def flops(self, inputs, outputs):
        # A bias, or else scale and offset of the normalisation.
        each = 1 if self.normalization is None else 2
        return outputs[0].size * (2 * math.prod(self.convolution.kernel.shape[:-1]) + each)

    def memory(self, inputs, outputs, recompute):
        [given], [made] = inputs, outputs
        copy = made.num_bytes // made.size * given.size
        copy = 0 if copy == given.num_bytes else copy
        has_slope = self.settings["activation"] == "leaky_relu"
        inner = made.num_bytes if has_slope else 0
        scratch = made.num_bytes
        if self.normalization is not None:
            inner += 4 * made.size
            scratch = 2 * 4 * made.size
        if recompute:
            return {
                "keeps_inputs": not copy,
                "kept": copy,
                "forward": inner + scratch,
                "backward": inner + made.num_bytes,
            }
        return {
            "keeps_inputs": not copy,
            "keeps_outputs": not has_slope,
            "kept": inner + copy,
            "forward": scratch,
            "backward": scratch,
        }


@keras.saving.register_keras_serializable(package="sepnet")
class NormalizedActivation(_Recomputed):
    """A normalisation and an activation, in this order or the other.

    Args:
        filters: features that come in.
        normalization: "none", "renorm", "batch", "frame", "group" or "instance".
        activation: "leaky_relu", "relu", "elu" or "gelu".
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
        self.normalization = NORMALIZATIONS[normalization](filters)
        self.activation = ACTIVATIONS[activation]()
        self.activation_first = activation_first

    def build(self, input_shape):
        if self.normalization is not None:
            self.normalization.build(input_shape)

    def _apply(self, features, training):
        if self.activation_first:
            features = self.activation(features)
        if self.normalization is not None:
            features = self.normalization(features, training=training)
        return features if self.activation_first else self.activation(features)

    def compute_output_shape(self, input_shape):
        return input_shape

    def flops(self, inputs, outputs):
        return 0 if self.normalization is None else 2 * outputs[0].size

    def memory(self, inputs, outputs, recompute):
        [made] = outputs
        # The normalisation keeps its input, in float32; the activation what lies between them, or the output.
        copy = 4 * made.size if made.num_bytes < 4 * made.size else 0
        keeps_outputs = not self.activation_first and self.settings["activation"] != "leaky_relu"
        inner = copy + made.num_bytes * (not keeps_outputs)
        scratch = 2 * 4 * made.size
        if recompute:
            return {"keeps_inputs": True, "forward": inner + scratch, "backward": inner + scratch}
        return {
            "keeps_inputs": True,
            "keeps_outputs": keeps_outputs,
            "kept": inner,
            "forward": scratch,
            "backward": scratch,
        }
