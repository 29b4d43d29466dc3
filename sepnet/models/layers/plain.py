"""`PlainLayer`: the members by which a layer tells how far it reaches, what it computes and what it keeps.

Every layer has `is_local`, `reach`, `flops` and `memory`. `PlainLayer` is the base of this project's layers;
`sepnet.models.layers.stock` has the same for Keras' own. A layer with neither raises.
"""

import dataclasses
import math

import keras
import numpy as np


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor between layers; the same `key` is the same tensor."""

    key: int
    shape: tuple[int, ...]
    num_bytes: int

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


@dataclasses.dataclass(frozen=True)
class Memory:
    """Memory of a layer beside its inputs and outputs.

    Attributes:
        keeps_inputs: they stay for the gradient.
        keeps_outputs: they stay for the gradient.
        kept: bytes of other things that stay for the gradient.
        forward: bytes that are needed only while it runs.
        backward: bytes that are needed only while its gradient is computed.
    """

    keeps_inputs: bool = False
    keeps_outputs: bool = False
    kept: int = 0
    forward: int = 0
    backward: int = 0


class PlainLayer(keras.layers.Layer):
    """Base of the layers: each value comes of those at its own place, counts no operation and nothing is kept.

    Subclasses override what is otherwise with them.

    Attributes:
        is_local: an output value depends on inputs near it alone.
    """

    is_local = True

    def reach(self, first: np.ndarray, last: np.ndarray, inputs, outputs) -> list:
        """Places on the time axis that outputs depend on.

        Args:
            first: int array, first places of stretches of the output.
            last: int array, last places of them.
            inputs: `Tensor`s that the layer takes.
            outputs: `Tensor`s that it gives.

        Returns:
            For each input the first and last places, or None where it depends on no value of it.
        """
        return [(first, last)] * len(inputs)

    def flops(self, inputs, outputs) -> int:
        """Floating-point operations; a multiply-add is two, and what is done to each value by itself counts none."""
        return 0

    def memory(self, inputs, outputs, recompute: bool) -> dict:
        """Keywords of `Memory`.

        Args:
            inputs: `Tensor`s that the layer takes.
            outputs: `Tensor`s that it gives.
            recompute: with recomputation, whether or not the layer was made so.
        """
        return {}


def convolution_reach(first, last, length: int, kernel_size: int, strides: int, padding: str) -> list:
    """The reach of a convolution, `kernel_size` with its dilation, over an axis of a length."""
    before = 0 if padding == "valid" else zeros_before(length, kernel_size, strides)
    return [(strides * first - before, strides * last - before + kernel_size - 1)]


def zeros_before(length: int, kernel_size: int, strides: int) -> int:
    """Zeros before an axis, so that a convolution gives one value for every `strides`."""
    return max((-(-length // strides) - 1) * strides + kernel_size - length, 0) // 2
