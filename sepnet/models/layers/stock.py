"""The same members for Keras' own layers; see `sepnet.models.layers.plain`."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import keras

from sepnet.models.layers.plain import convolution_reach, zeros_before


def _same_places(layer, first, last, inputs, outputs) -> list:
    return [(first, last)] * len(inputs)


def _no_flops(layer, inputs, outputs) -> int:
    return 0


def _no_memory(layer, inputs, outputs, recompute) -> dict:
    return {}


@dataclasses.dataclass(frozen=True)
class StockLayer:
    """The members of `PlainLayer`, for a layer of Keras, which is given first."""

    reach: Callable = _same_places
    flops: Callable = _no_flops
    memory: Callable = _no_memory
    is_local: bool = True


def _convolution(layer, first, last, inputs, outputs) -> list:
    kernel_size = (layer.kernel_size[0] - 1) * layer.dilation_rate[0] + 1
    return convolution_reach(first, last, inputs[0].shape[1], kernel_size, layer.strides[0], layer.padding)


def _convolution_flops(layer, inputs, outputs) -> int:
    return outputs[0].size * (2 * math.prod(layer.kernel.shape[:-1]) + layer.use_bias)


def _convolution_memory(layer, inputs, outputs, recompute) -> dict:
    # The last one is in float32: under mixed precision it works on a copy.
    in_float32 = 4 * inputs[0].size
    is_copied = sum(tensor.num_bytes for tensor in inputs) < in_float32 and layer.compute_dtype == "float32"
    copy = in_float32 if is_copied else 0
    return {"keeps_inputs": not copy, "kept": copy, "backward": copy}


def _transposed(layer, first, last, inputs, outputs) -> list:
    kernel_size, strides = layer.kernel_size[0], layer.strides[0]
    before = zeros_before(strides * inputs[0].shape[1], kernel_size, strides)
    return [(-((kernel_size - 1 - before - first) // strides), (last + before) // strides)]


def _transposed_flops(layer, inputs, outputs) -> int:
    return 2 * inputs[0].size * math.prod(layer.kernel.shape[:-1]) + outputs[0].size * layer.use_bias


def _pooling(layer, first, last, inputs, outputs) -> list:
    return convolution_reach(first, last, inputs[0].shape[1], layer.pool_size[0], layer.strides[0], layer.padding)


def _dropout_memory(layer, inputs, outputs, recompute) -> dict:
    return {"kept": outputs[0].num_bytes, "forward": outputs[0].num_bytes}


CONVOLUTION = StockLayer(_convolution, _convolution_flops, _convolution_memory)
TRANSPOSED = StockLayer(_transposed, _transposed_flops, _convolution_memory)
MEAN_POOLING = StockLayer(_pooling)
MAX_POOLING = StockLayer(_pooling, memory=lambda *_: {"keeps_inputs": True, "keeps_outputs": True})
# The layers and operations of Keras that this project's networks use; a class that is missing here raises.
STOCK = {
    keras.layers.InputLayer: StockLayer(),
    keras.layers.Conv1D: CONVOLUTION,
    keras.layers.Conv2D: CONVOLUTION,
    keras.layers.Conv1DTranspose: TRANSPOSED,
    keras.layers.Conv2DTranspose: TRANSPOSED,
    keras.layers.AveragePooling1D: MEAN_POOLING,
    keras.layers.AveragePooling2D: MEAN_POOLING,
    keras.layers.MaxPooling1D: MAX_POOLING,
    keras.layers.MaxPooling2D: MAX_POOLING,
    keras.layers.Concatenate: StockLayer(),
    keras.layers.Add: StockLayer(),
    keras.layers.Multiply: StockLayer(memory=lambda *_: {"keeps_inputs": True}),
    keras.layers.Activation: StockLayer(memory=lambda *_: {"keeps_inputs": True}),
    keras.layers.Dropout: StockLayer(memory=_dropout_memory),
}


def tell(layer: keras.Operation, member: str) -> Any:
    """A member of `PlainLayer`, of whatever layer.

    Raises:
        TypeError: the layer is none of those in `STOCK`, and has no such member.
    """
    if type(layer) in STOCK:
        value = getattr(STOCK[type(layer)], member)
        return functools.partial(value, layer) if callable(value) else value
    if not hasattr(layer, member):
        raise TypeError(
            f"the layer {layer.name} ({type(layer).__name__}) does not tell its {member}; derive it from "
            "sepnet.models.layers.plain.PlainLayer, or add Keras' own to sepnet.models.layers.stock.STOCK"
        )
    return getattr(layer, member)
