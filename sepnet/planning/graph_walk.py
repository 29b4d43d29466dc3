"""The layers of a network in the order in which they run, with the shapes of what goes in and comes out."""

import contextlib
import dataclasses
import math

import keras

from sepnet.config.sections import Config
from sepnet.models import build_network
from sepnet.models.network import Network

TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose)
CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D)
MAX_POOLINGS = (keras.layers.MaxPooling1D, keras.layers.MaxPooling2D)
POOLINGS = (keras.layers.AveragePooling1D, keras.layers.AveragePooling2D, *MAX_POOLINGS)


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
class Call:
    """A layer at work: what goes in and what comes out."""

    layer: keras.Operation
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def parameters(self) -> int:
        """Number of trained weights."""
        return sum(math.prod(weight.shape) for weight in getattr(self.layer, "trainable_weights", ()))


def untrained(config: Config, sample_rate: int) -> Network:
    """Builds the network of a config, without memory for its weights (with TensorFlow), for the functions below.

    It is in mixed precision whatever the config says, which shows what can be: the same network then serves to find
    out what a config costs with another batch or precision, or with recomputation.
    """
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        with _weightless():
            return build_network(config, sample_rate)
    finally:
        keras.config.set_dtype_policy(policy)


def core_calls(network: Network, batch_size: int, num_samples: int, precision: str = "float32") -> list[Call]:
    """The calls of what is trained, `network.core`, for estimates of `num_samples` samples."""
    num_channels = network.core.inputs[0].shape[-1]
    return _calls(network.core, (batch_size, num_samples + 2 * network.margin_samples, num_channels), precision)


def _calls(model: keras.Model, shape: tuple[int, ...], precision: str) -> list[Call]:
    """The layers of a Functional model and of those inside it, in the order in which they run, at this input shape."""
    item_bytes = {"float32": 4, "bfloat16": 4 if precision == "float32" else 2}
    keys: dict[int, int] = {}
    # References are kept: the ids of freed tensors are used again.
    remembered, found = [], []

    def tensors(structure) -> list:
        return [tensor for tensor in keras.tree.flatten(structure) if isinstance(tensor, keras.KerasTensor)]

    def key(tensor) -> int:
        remembered.append(tensor)
        return keys.setdefault(id(tensor), id(tensor))

    def as_tensor(tensor) -> Tensor:
        num_bytes = math.prod(tensor.shape) * item_bytes[tensor.dtype]
        return Tensor(key(tensor), tuple(tensor.shape), num_bytes)

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


def _weightless():
    """Where weights are only promised: a TensorFlow graph that never runs. Other backends know nothing like it."""
    if keras.backend.backend() != "tensorflow":
        return contextlib.nullcontext()
    import tensorflow as tf

    return tf.Graph().as_default()
