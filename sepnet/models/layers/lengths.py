"""Layers that pad and cut axes to the lengths that others need."""

from collections.abc import Sequence

import keras
from keras import ops

from pipelines.batches.spectra import stretch
from sepnet.models.layers.plain import PlainLayer


@keras.saving.register_keras_serializable(package="sepnet")
class PadToGrid(PlainLayer):
    """Appends zeros to axes, up to the next multiple of the grid of each.

    Args:
        grids: by axis; 1 leaves it as it is.
    """

    def __init__(self, grids: Sequence[int], **kwargs):
        super().__init__(**kwargs)
        self.grids = tuple(grids)

    def call(self, inputs):
        sizes = zip(ops.shape(inputs), self.grids, strict=True)
        return ops.pad(inputs, [(0, 0 if grid == 1 else -size % grid) for size, grid in sizes])

    def compute_output_shape(self, input_shape):
        sizes = zip(input_shape, self.grids, strict=True)
        return tuple(size if size is None else size + -size % grid for size, grid in sizes)

    def get_config(self):
        return {**super().get_config(), "grids": self.grids}


@keras.saving.register_keras_serializable(package="sepnet")
class PadMargin(PlainLayer):
    """Puts `margin` zeros before and after a waveform, and as many more after it as reach the next valid length.

    Args:
        margin: samples that the network is given, and does not give back, at each end.
        first_length: the shortest output of the network.
        grid: its outputs have `first_length`, `first_length + grid`, ... samples.
    """

    def __init__(self, margin: int, first_length: int, grid: int, **kwargs):
        super().__init__(**kwargs)
        self.margin = margin
        self.first_length = first_length
        self.grid = grid

    def call(self, inputs):
        return ops.pad(inputs, [(0, 0), (self.margin, self.margin + self._missing(ops.shape(inputs)[1])), (0, 0)])

    def _missing(self, num_samples, maximum=ops.maximum):
        steps = maximum(num_samples - self.first_length + self.grid - 1, 0) // self.grid
        return self.first_length + steps * self.grid - num_samples

    def compute_output_shape(self, input_shape):
        batch, length, channels = input_shape
        if length is not None:
            length += 2 * self.margin + self._missing(length, max)
        return (batch, length, channels)

    def get_config(self):
        sizes = {"margin": self.margin, "first_length": self.first_length, "grid": self.grid}
        return {**super().get_config(), **sizes}


@keras.saving.register_keras_serializable(package="sepnet")
class CropCenter(PlainLayer):
    """Cuts the second axis to the length that the other input has there, equally at both ends."""

    def call(self, inputs, reference):
        length = ops.shape(reference)[1]
        start = (ops.shape(inputs)[1] - length) // 2
        return stretch(inputs, 1, start, length)

    def compute_output_shape(self, inputs_shape, reference_shape):
        return (inputs_shape[0], reference_shape[1], *inputs_shape[2:])

    def reach(self, first, last, inputs, outputs):
        start = (inputs[0].shape[1] - inputs[1].shape[1]) // 2
        return [(first + start, last + start), None]


@keras.saving.register_keras_serializable(package="sepnet")
class CropLike(PlainLayer):
    """Cuts each axis but that of the channels to the length that the second input has there.

    Args:
        channel_axis: -1 in waveforms, 1 in spectra.
    """

    def __init__(self, channel_axis: int = -1, **kwargs):
        super().__init__(**kwargs)
        self.channel_axis = channel_axis

    def call(self, inputs, reference):
        shape = list(ops.shape(reference))
        shape[self.channel_axis] = inputs.shape[self.channel_axis]
        return ops.slice(inputs, [0] * len(shape), shape)

    def compute_output_shape(self, inputs_shape, reference_shape):
        shape = list(reference_shape)
        shape[self.channel_axis] = inputs_shape[self.channel_axis]
        return tuple(shape)

    def get_config(self):
        return {**super().get_config(), "channel_axis": self.channel_axis}

    def reach(self, first, last, inputs, outputs):
        return [(first, last), None]


@keras.saving.register_keras_serializable(package="sepnet")
class Delay(PlainLayer):
    """Puts zeros before a waveform, or takes as many samples away where the number is below 0."""

    def __init__(self, num_samples: int, **kwargs):
        super().__init__(**kwargs)
        self.num_samples = num_samples

    def call(self, inputs):
        if self.num_samples < 0:
            return stretch(inputs, 1, -self.num_samples, ops.shape(inputs)[1] + self.num_samples)
        return ops.pad(inputs, [(0, 0), (self.num_samples, 0), (0, 0)])

    def compute_output_shape(self, input_shape):
        batch, length, channels = input_shape
        return (batch, None if length is None else length + self.num_samples, channels)

    def get_config(self):
        return {**super().get_config(), "num_samples": self.num_samples}

    def reach(self, first, last, inputs, outputs):
        return [(first - self.num_samples, last - self.num_samples)]
