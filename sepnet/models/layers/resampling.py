"""Layers that halve and double the axes between batch and channels."""

import keras
import numpy as np
from keras import ops

from pipelines.batches.spectra import stretch
from sepnet.models.layers.plain import PlainLayer

# Half-band low-pass: a sinc of 15 taps under a Hann window, 6 dB down at a quarter of the sample rate.
LOW_PASS = np.sinc(np.arange(-7, 8) / 2) * np.hanning(17)[1:-1]


@keras.saving.register_keras_serializable(package="sepnet")
class Decimate(PlainLayer):
    """Keeps every second value along each axis between batch and channels.

    >>> import numpy as np
    >>> from sepnet.models.layers.resampling import Decimate
    >>> np.array(Decimate()(np.arange(6.0).reshape(1, 6, 1)))[0, :, 0].tolist()
    [0.0, 2.0, 4.0]
    """

    def call(self, inputs):
        return inputs[:, ::2] if len(inputs.shape) == 3 else inputs[:, ::2, ::2]

    def compute_output_shape(self, input_shape):
        halves = [size if size is None else -(-size // 2) for size in input_shape[1:-1]]
        return (input_shape[0], *halves, input_shape[-1])

    def reach(self, first, last, inputs, outputs):
        return [(2 * first, 2 * last)]


@keras.saving.register_keras_serializable(package="sepnet")
class LowPass(PlainLayer):
    """Removes, along each axis between batch and channels, what decimation by two would fold back.

    Args:
        is_valid: without padding, so that an axis of `n` becomes one of `n - 14`; else zeros are put around it.
    """

    def __init__(self, is_valid: bool, **kwargs):
        super().__init__(**kwargs)
        self.is_valid = is_valid

    def call(self, inputs):
        kernel = ops.cast(LOW_PASS / LOW_PASS.sum(), inputs.dtype)
        for axis in range(len(inputs.shape) - 2):
            shape = [1] * len(inputs.shape)
            shape[axis] = len(LOW_PASS)
            tiled = ops.repeat(ops.reshape(kernel, shape), inputs.shape[-1], axis=-2)
            inputs = ops.depthwise_conv(inputs, tiled, padding="valid" if self.is_valid else "same")
        return inputs

    def compute_output_shape(self, input_shape):
        lost = len(LOW_PASS) - 1 if self.is_valid else 0
        lengths = [size if size is None else size - lost for size in input_shape[1:-1]]
        return (input_shape[0], *lengths, input_shape[-1])

    def get_config(self):
        return {**super().get_config(), "is_valid": self.is_valid}

    def reach(self, first, last, inputs, outputs):
        before = 0 if self.is_valid else len(LOW_PASS) // 2
        return [(first - before, last - before + len(LOW_PASS) - 1)]

    def flops(self, inputs, outputs):
        return 2 * outputs[0].size * len(LOW_PASS) * (len(outputs[0].shape) - 2)


@keras.saving.register_keras_serializable(package="sepnet")
class Upsample(PlainLayer):
    """Doubles each axis between batch and channels: the values themselves, and between them means of the neighbours.

    Args:
        learned: the mean has weights of its own for each feature, `w` and `1 - w` with `w` from a sigmoid
            (Wave-U-Net's learned interpolation); else they are equal.
        is_valid: without padding, so that an axis of `n` becomes one of `2 * n - 1`; else the last value is held and
            it becomes one of `2 * n`.
    """

    def __init__(self, learned: bool, is_valid: bool, **kwargs):
        super().__init__(**kwargs)
        self.learned = learned
        self.is_valid = is_valid

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
        shape = list(ops.shape(inputs))
        last = shape[axis] - 1
        following = ops.concatenate([stretch(inputs, axis, 1, last), stretch(inputs, axis, last, 1)], axis=axis)
        doubled = ops.stack([inputs, share * inputs + (1 - share) * following], axis=axis + 1)
        shape[axis] = 2 * shape[axis]
        doubled = ops.reshape(doubled, shape)
        return stretch(doubled, axis, 0, 2 * last + 1) if self.is_valid else doubled

    def compute_output_shape(self, input_shape):
        doubled = [size if size is None else 2 * size - self.is_valid for size in input_shape[1:-1]]
        return (input_shape[0], *doubled, input_shape[-1])

    def get_config(self):
        return {**super().get_config(), "learned": self.learned, "is_valid": self.is_valid}

    def reach(self, first, last, inputs, outputs):
        return [(first // 2, (last + 1) // 2)]

    def flops(self, inputs, outputs):
        # A weighted sum for every value that is new along an axis.
        return 3 * (outputs[0].size - inputs[0].size)

    def memory(self, inputs, outputs, recompute):
        made = outputs[0].num_bytes
        return {"keeps_inputs": self.learned, "kept": made * self.learned, "forward": made, "backward": made}
