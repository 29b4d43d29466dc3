"""Layers on the magnitudes and the phase of a spectrum, `[batch, num_channels, num_frames, num_bins]` each."""

import keras
from keras import ops

from pipelines.batches.spectra import magnitude, stretch
from sepnet.models.layers.plain import PlainLayer
from sepnet.models.layers.sources import OverSources


@keras.saving.register_keras_serializable(package="sepnet")
class Polar(PlainLayer):
    """Magnitude, and cosine and sine of the phase, of a complex spectrum; silence has a phase of zero length."""

    def call(self, real, imag):
        size = magnitude(real, imag)
        return size, real / size, imag / size

    def compute_output_shape(self, real_shape, imag_shape):
        return (real_shape,) * 3


@keras.saving.register_keras_serializable(package="sepnet")
class Rectangular(OverSources):
    """Gives the magnitudes of every source, `[batch, num_sources * num_channels, ...]`, the phase of the mixture."""

    def call(self, magnitudes, cosine, sine):
        return self.times(magnitudes, cosine), self.times(magnitudes, sine)

    def compute_output_shape(self, magnitudes_shape, cosine_shape, sine_shape):
        return (magnitudes_shape,) * 2

    def memory(self, inputs, outputs, recompute):
        return {"backward": outputs[0].num_bytes}


@keras.saving.register_keras_serializable(package="sepnet")
class Rectify(PlainLayer):
    """The absolute value: magnitudes are not negative.

    After a ReLU, channels of a fresh network that happen to be nowhere above zero have no gradient, and stay silent.
    """

    def call(self, inputs):
        return ops.absolute(inputs)

    def compute_output_shape(self, input_shape):
        return input_shape

    def memory(self, inputs, outputs, recompute):
        return {"keeps_inputs": True, "backward": outputs[0].num_bytes}


@keras.saving.register_keras_serializable(package="sepnet")
class LogMagnitudes(PlainLayer):
    """Logarithms of magnitudes, and the place in frequency.

    The place is one more channel, which rises from 0 to 1 over frequency, since convolutions cannot tell low
    from high.
    """

    def call(self, magnitudes):
        features = ops.log1p(magnitudes)
        ramp = ops.zeros_like(features[:, :1]) + ops.linspace(0.0, 1.0, features.shape[-1])
        return ops.concatenate([features, ramp], axis=1)

    def compute_output_shape(self, magnitudes_shape):
        return (magnitudes_shape[0], magnitudes_shape[1] + 1, *magnitudes_shape[2:])


@keras.saving.register_keras_serializable(package="sepnet")
class AddBins(PlainLayer):
    """Gives the highest bins, which the network does not see, the values of the one below them, or zeros."""

    def __init__(self, times: int, repeats_last: bool, **kwargs):
        super().__init__(**kwargs)
        self.times = times
        self.repeats_last = repeats_last

    def call(self, inputs):
        last = stretch(inputs, 3, ops.shape(inputs)[3] - 1, 1)
        last = last if self.repeats_last else ops.zeros_like(last)
        return ops.concatenate([inputs, ops.repeat(last, self.times, axis=3)], axis=3)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:3], input_shape[3] + self.times)

    def get_config(self):
        return {**super().get_config(), "times": self.times, "repeats_last": self.repeats_last}


@keras.saving.register_keras_serializable(package="sepnet")
class LowestBins(PlainLayer):
    """Keeps the lowest `num_bins` bins."""

    def __init__(self, num_bins: int, **kwargs):
        super().__init__(**kwargs)
        self.num_bins = num_bins

    def call(self, inputs):
        return inputs[..., : self.num_bins]

    def compute_output_shape(self, input_shape):
        return (*input_shape[:3], self.num_bins)

    def get_config(self):
        return {**super().get_config(), "num_bins": self.num_bins}


@keras.saving.register_keras_serializable(package="sepnet")
class ZeroLowestBins(LowestBins):
    """Makes the lowest `num_bins` bins zero."""

    def call(self, inputs):
        lowest = super().call(inputs)
        return ops.concatenate([ops.zeros_like(lowest), inputs[..., self.num_bins :]], axis=3)

    def compute_output_shape(self, input_shape):
        return input_shape


@keras.saving.register_keras_serializable(package="sepnet")
class Scale(PlainLayer):
    """Multiplies by a number."""

    def __init__(self, factor: float, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, inputs):
        return inputs * self.factor

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}
