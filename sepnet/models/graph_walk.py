"""The layers of a network in the order in which they run, and what follows from what they tell."""

import dataclasses
import math

import keras
import numpy as np

from sepnet.models.layers.plain import Memory, Tensor
from sepnet.models.layers.stock import tell

ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclasses.dataclass(frozen=True)
class Call:
    """A layer at work: what goes in and what comes out."""

    layer: keras.Operation
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def parameters(self) -> int:
        """Number of trained weights."""
        return sum(math.prod(weight.shape) for weight in getattr(self.layer, "trainable_weights", ()))

    @property
    def flops(self) -> int:
        """Floating-point operations; a multiply-add is two."""
        return tell(self.layer, "flops")(self.inputs, self.outputs)

    def memory(self, recompute: bool = False) -> Memory:
        """Memory beside inputs and outputs, with or without recomputation."""
        return Memory(**tell(self.layer, "memory")(self.inputs, self.outputs, recompute))


def calls(model: keras.Model, shape: tuple[int, ...], half: bool = True) -> list[Call]:
    """The layers of a Functional model and of those inside it, in the order in which they run.

    Args:
        model: takes one tensor.
        shape: of this tensor, all of it known.
        half: features that the model holds in 2 bytes take 2 bytes; else all values take 4.
    """
    keys: dict[int, int] = {}
    # References are kept: the ids of freed tensors are used again.
    remembered, found = [], []

    def tensors(structure) -> list:
        return [tensor for tensor in keras.tree.flatten(structure) if isinstance(tensor, keras.KerasTensor)]

    def key(tensor) -> int:
        remembered.append(tensor)
        return keys.setdefault(id(tensor), id(tensor))

    def as_tensor(tensor) -> Tensor:
        item_bytes = ITEM_BYTES[tensor.dtype] if half else 4
        return Tensor(key(tensor), tuple(tensor.shape), math.prod(tensor.shape) * item_bytes)

    def call(layer, *arguments, **options):
        outputs = layer(*arguments, **options)
        if isinstance(layer, keras.Model):
            inputs = keras.Input(batch_shape=arguments[0].shape, dtype=arguments[0].dtype)
            keys[id(inputs)] = key(arguments[0])
            for inner, outer in zip(tensors(walk(layer, inputs)), tensors(outputs), strict=True):
                keys[id(outer)] = key(inner)
        else:
            sides = (tuple(map(as_tensor, tensors(side))) for side in ((arguments, options), outputs))
            found.append(Call(layer, *sides))
        return outputs

    def walk(functional, inputs):
        remembered.append(inputs)
        # Its layers are called again, not copied.
        copy = keras.models.clone_model(functional, inputs, clone_function=lambda layer: layer, call_function=call)
        return copy.output

    walk(model, keras.Input(batch_shape=shape))
    return found


def reach(model: keras.Model, num_samples: int, grid: int) -> tuple[int, int, int] | None:
    """Finds how far the outputs of a model from waveform to stems depend on its input.

    Args:
        model: takes `[batch, num_samples, num_channels]`.
        num_samples: length that the model takes.
        grid: samples after which the pattern of dependences repeats.

    Returns:
        The most input samples that one output sample depends on; and the most that lie before, and after, the place
        with the same index. None where an output depends on all of the input.
    """
    layers = calls(model, (1, num_samples, model.inputs[0].shape[-1]))
    if not all(tell(call.layer, "is_local") for call in layers):
        return None
    # Outputs at other places of the grid see other stretches.
    places = np.arange(grid)
    seen = {tensor.key: (places, places) for tensor in layers[-1].outputs}
    for call in reversed(layers):
        spans = [seen[tensor.key] for tensor in call.outputs if tensor.key in seen]
        if not spans:
            continue
        spans_of_inputs = tell(call.layer, "reach")(*_union(spans), call.inputs, call.outputs)
        for tensor, span in zip(call.inputs, spans_of_inputs, strict=True):
            if span is not None:
                seen[tensor.key] = _union([span, seen[tensor.key]]) if tensor.key in seen else span
    first, last = seen[layers[0].inputs[0].key]
    return int((last - first).max()) + 1, int((places - first).max()), int((last - places).max())


def _union(spans):
    firsts, lasts = zip(*spans, strict=True)
    return np.minimum.reduce(firsts), np.maximum.reduce(lasts)
