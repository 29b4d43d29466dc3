"""What a config costs, known before anything is trained: parameters, operations, receptive field and memory.

All of it is arithmetic on the layers of the model. Its weights are never made, so that models far beyond the memory of
this machine can be counted.

The memory of a training step is found by going through it, forward and back, and counting what is there:

- In float32: weights, gradients (each from the moment its layer has one), Adam's two moments, and a copy each for
  averaged weights and for accumulation. Mixed precision keeps the kernels once more, in 2 bytes.
- Features, 4 bytes a value, or 2 under mixed precision, until the last layer has used them. For the gradient TensorFlow
  keeps the input of every convolution (where features are joined, the joined copy), the input of LeakyReLU and
  `Rectify` or the output of ReLU and ELU, the input of a normalisation (always float32), both sides of a max pooling,
  masks, and the phases that magnitudes were given. Interpolation, decimation, other pooling and the STFT keep nothing.
- With recomputation, of a convolution, its normalisation and its activation only the input is kept. The rest is there
  again while their gradient is computed.
- Gradients of features, each for one layer longer than needed: TensorFlow starts what it can, not what frees most. The
  gradient of a skip stays from the way up until the way down.
- What a layer needs for itself while it runs, such as the frames of the inverse STFT.
- The batch in int16, and in float32 sources, estimates and what the loss makes of them.

There are two answers, both measured on CPU by `python -m benchmarks.memory`:

- "gpu" is what TensorFlow's allocator hands out at the peak. That the pieces it hands out are larger than asked for is
  in `ALLOCATED`. On a GPU come the CUDA context, about 0.5 GB, and the workspaces that cuDNN picks where there is room.
- "cpu" is what the whole process takes: Python and TensorFlow, `PROCESS_BYTES`, and the pool of the allocator,
  `POOLED`. The pool never shrinks, and pieces of many sizes leave gaps in it.
"""

import contextlib
import dataclasses
import math
from collections import defaultdict
from collections.abc import Sequence

import keras
import numpy as np

from pipelines.batches.spectra import STFT, InverseSTFT, MelSpectrogram, MelToLinear
from sepnet.config.sections import Config
from sepnet.models import build_network
from sepnet.models.blocks import (
    LOW_PASS,
    Convolution,
    CropCenter,
    CropLike,
    Decimate,
    LowPass,
    NormalizedActivation,
    Upsample,
)
from sepnet.models.network import Network
from sepnet.models.outputs import ApplyMasks, Masks, WienerStep
from sepnet.models.unet_2d import Rectangular, Rectify
from sepnet.separation.separator import block_and_context
from sepnet.training.losses import RESOLUTIONS

DEVICES = ("cpu", "gpu")
ALLOCATED = 1.05
POOLED = 1.45
PROCESS_BYTES = 0.85e9
TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose)
CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D)
MAX_POOLINGS = (keras.layers.MaxPooling1D, keras.layers.MaxPooling2D)
POOLINGS = (keras.layers.AveragePooling1D, keras.layers.AveragePooling2D, *MAX_POOLINGS)


@dataclasses.dataclass(frozen=True)
class Costs:
    """What one config costs.

    Attributes:
        depth: number of levels.
        parameters: weights, trained or not.
        flops_per_second: operations of the forward pass for a second of audio; a multiply-add is two.
        receptive_field_samples: the most samples that one output sample depends on; None if it is all of them.
        training_bytes: peak memory of a training step.
        separation_bytes: peak memory of separating a block.
    """

    depth: int
    parameters: int
    flops_per_second: float
    receptive_field_samples: int | None
    training_bytes: int
    separation_bytes: int


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


@dataclasses.dataclass(frozen=True)
class Need:
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


def costs(config: Config, sample_rate: int, device: str = "gpu", network: Network | None = None) -> Costs:
    """All costs of a config.

    Args:
        config: checked config whose depth fits its segment.
        sample_rate: Hz.
        device: "cpu" or "gpu", which says what counts as memory; see above.
        network: what `untrained` gives for this config, if it is there already.

    Raises:
        UserError: options that do not go together.
    """
    network = network or untrained(config, sample_rate)
    num_samples = network.training_samples(_segment_samples(config, sample_rate))
    return Costs(
        depth=config.model.depth,
        parameters=network.model.count_params(),
        flops_per_second=flops(network, num_samples) * sample_rate / num_samples,
        receptive_field_samples=receptive_field_samples(network),
        training_bytes=training_bytes(config, sample_rate, device, network),
        separation_bytes=separation_bytes(config, sample_rate, device, network),
    )


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


def flops(network: Network, num_samples: int) -> int:
    """Floating-point operations of the forward pass of training on one example; a multiply-add is two.

    Counted are convolutions, normalisation, interpolation, mel bands and Fourier transforms; what is done to each value
    by itself, such as an activation, is not.

    Args:
        network: of any family.
        num_samples: length of the estimates, one that `network.training_samples` gives.
    """
    return sum(map(_flops, _core_calls(network, 1, num_samples)))


def receptive_field_samples(network: Network) -> int | None:
    """How many samples one output sample depends on, for the one that sees most; None if it sees all of them."""
    if network.context_samples is None:
        return None
    calls = _core_calls(network, 1, network.training_samples(1))
    # Outputs at other places of the grid see other stretches.
    places = np.arange(network.grid_samples)
    seen = {tensor.key: (places, places) for tensor in calls[-1].outputs}
    for call in reversed(calls):
        spans = [seen[tensor.key] for tensor in call.outputs if tensor.key in seen]
        if not spans:
            continue
        first, last = _union(spans)
        for tensor, span in zip(call.inputs, _reach(call, first, last), strict=True):
            if span is not None:
                seen[tensor.key] = _union([span, seen[tensor.key]]) if tensor.key in seen else span
    first, last = seen[calls[0].inputs[0].key]
    return int((last - first).max()) + 1


def training_bytes(config: Config, sample_rate: int, device: str = "gpu", network: Network | None = None) -> int:
    """Peak memory of a training step on each device, without XLA; validation, 4 segments at a time, is not in it.

    Args:
        config: checked config whose depth fits its segment.
        sample_rate: Hz.
        device: "cpu" or "gpu"; see above.
        network: what `untrained` gives for this config, if it is there already.
    """
    network = network or untrained(config, sample_rate)
    training, num_sources = config.training, len(config.data.parts)
    num_samples = network.training_samples(_segment_samples(config, sample_rate))
    batch_size = training.batch_size // training.devices
    calls = _core_calls(network, batch_size, num_samples, training.precision)
    weights = sum(math.prod(weight.shape) for weight in network.core.weights)
    trained = sum(call.parameters for call in calls)
    moments = 2 + (training.ema > 0) + (training.accumulation > 1)
    half = 2 * trained if training.precision != "float32" else 0
    # One float32 value for each sample of each stem; the batch itself has 2 bytes a value.
    audio = 4 * batch_size * num_samples * num_sources * config.data.num_channels
    always = 4 * (weights + moments * trained) + half + audio // 2 + audio
    peak = always + _training_peak(calls, audio, training.loss, config.model.recompute)
    return _on_device(peak, device)


def separation_bytes(config: Config, sample_rate: int, device: str = "gpu", network: Network | None = None) -> int:
    """Peak memory of separating a block of a song, as `sepnet.Separator` cuts it; arguments as for `training_bytes`."""
    network = network or untrained(config, sample_rate)
    num_samples = network.training_samples(block_samples(network, sample_rate))
    calls = _core_calls(network, 1, num_samples, config.training.precision)
    last_use = {tensor.key: index for index, call in enumerate(calls) for tensor in call.inputs}
    # What spreads the mixture over the sources needs no estimate, so TensorFlow runs it at once.
    spread = sum(_need(call).kept for call in calls if isinstance(call.layer, ApplyMasks | Rectangular))
    live = peak = 4 * network.model.count_params() + spread
    for index, call in enumerate(calls):
        live += sum(tensor.num_bytes for tensor in call.outputs)
        peak = max(peak, live + _need(call).forward)
        live -= sum(tensor.num_bytes for tensor in set(call.inputs) if last_use[tensor.key] == index)
    return _on_device(peak, device)


def block_samples(network: Network, sample_rate: int) -> int:
    """How much of a song the model sees at once when it is separated, block and context."""
    block, context = block_and_context(network.grid_samples, network.context_samples, sample_rate)
    return block + 2 * (context or 0)


def _on_device(num_bytes: int, device: str) -> int:
    return round(PROCESS_BYTES + POOLED * num_bytes if device == "cpu" else ALLOCATED * num_bytes)


def _training_peak(calls: Sequence[Call], audio: int, loss: str, recompute: bool) -> int:
    """The most bytes beside weights and batch that are there at once; `audio` is the size of all sources."""
    differentiable: set[int] = set()
    needs = []
    # By tensor: the calls that need it, forward or (counted on from the end) for the gradient.
    until: dict[int, int] = {}
    for index, call in enumerate(calls):
        has_gradient = bool(call.parameters) or any(tensor.key in differentiable for tensor in call.inputs)
        if has_gradient:
            differentiable |= {tensor.key for tensor in call.outputs}
        need = _need(call, recompute)
        needs.append(need if has_gradient else Need(forward=need.forward))
        kept = (*call.inputs * needs[-1].keeps_inputs, *call.outputs * needs[-1].keeps_outputs)
        until |= {tensor.key: max(index, until.get(tensor.key, 0)) for tensor in call.inputs}
        # Going back, the call at `index` comes at `2 * len(calls) - index`; the first that keeps a tensor is the last.
        for tensor in kept:
            until[tensor.key] = max(2 * len(calls) - index, until.get(tensor.key, 0))

    ending = defaultdict(int)
    live = peak = 0
    for index, (call, need) in enumerate(zip(calls, needs, strict=True)):
        for tensor in call.outputs:
            live += tensor.num_bytes
            ending[until.get(tensor.key, len(calls))] += tensor.num_bytes
        live += need.kept
        peak = max(peak, live + need.forward)
        live -= ending[index]

    kept, scratch = _loss_need(audio, loss)
    peak = max(peak, live + audio + kept + scratch)
    live += kept - ending[len(calls)]
    gradients = {tensor.key: tensor.num_bytes for tensor in calls[-1].outputs}
    live += sum(gradients.values())
    released = 0
    for index in reversed(range(len(calls))):
        call, need = calls[index], needs[index]
        for tensor in call.inputs:
            if tensor.key in differentiable and tensor.key not in gradients:
                gradients[tensor.key] = tensor.num_bytes
                live += tensor.num_bytes
        live += 4 * call.parameters
        peak = max(peak, live + need.backward)
        live -= released + need.kept + ending[2 * len(calls) - index]
        released = sum(gradients.pop(tensor.key, 0) for tensor in call.outputs)
    # Adam works on a few copies of a weight.
    return max(peak, live + 3 * max(4 * call.parameters for call in calls))


def _loss_need(audio: int, loss: str) -> tuple[int, int]:
    """Bytes that the loss keeps for the gradient, and those that it and the metrics need for a moment."""
    if loss in ("mse", "l1"):
        return audio, 2 * audio
    # With frames that move by a quarter of themselves a spectrum has twice as many values as the audio, real and
    # imaginary each. Kept are both, the magnitude and the difference.
    kept = 4 * 2 * audio
    num_resolutions = len(RESOLUTIONS) if loss == "multi_resolution_stft" else 1
    return num_resolutions * kept, 2 * kept


def _need(call: Call, recompute: bool = False) -> Need:
    layer = call.layer
    given = sum(tensor.num_bytes for tensor in call.inputs)
    made = sum(tensor.num_bytes for tensor in call.outputs)
    values = sum(tensor.size for tensor in call.outputs)
    match layer:
        case Convolution():
            return _convolution_need(call, recompute)
        case NormalizedActivation():
            return _normalization_need(call, recompute)
        case layer if isinstance(layer, CONVOLUTIONS + TRANSPOSED):
            # The last one is in float32: under mixed precision it works on a copy.
            copy = (
                4 * call.inputs[0].size if given < 4 * call.inputs[0].size and layer.compute_dtype == "float32" else 0
            )
            return Need(keeps_inputs=not copy, kept=copy, backward=copy)
        case layer if isinstance(layer, MAX_POOLINGS):
            return Need(keeps_inputs=True, keeps_outputs=True)
        case Rectify():
            return Need(keeps_inputs=True, backward=made)
        case Upsample():
            return Need(keeps_inputs=layer.learned, kept=made * layer.learned, forward=made, backward=made)
        case keras.layers.Dropout():
            return Need(kept=made, forward=made)
        case Masks():
            return Need(kept=made, forward=made, backward=made)
        case ApplyMasks():
            return Need(kept=made)
        case WienerStep():
            # Powers, shares and the mixture for each source.
            return Need(kept=3 * made, forward=made, backward=3 * made)
        case Rectangular():
            return Need(kept=made, backward=made // 2)
        case STFT():
            frames = 4 * values * layer.frame_length // (2 * layer.num_bins)
            return Need(forward=2 * frames)
        case InverseSTFT():
            frames = given * layer.frame_length // (2 * layer.num_bins)
            return Need(forward=given + frames, backward=given + frames)
    return Need()


def _convolution_need(call: Call, recompute: bool) -> Need:
    settings = call.layer.settings
    [given], [made] = call.inputs, call.outputs
    copy = made.num_bytes // made.size * given.size
    copy = 0 if copy == given.num_bytes else copy
    has_slope = settings["activation"] == "leaky_relu"
    inner = made.num_bytes if has_slope else 0
    scratch = made.num_bytes
    if settings["normalization"] != "none":
        inner += 4 * made.size
        scratch = 2 * 4 * made.size
    if recompute:
        return Need(not copy, kept=copy, forward=inner + scratch, backward=inner + made.num_bytes)
    return Need(not copy, not has_slope, kept=inner + copy, forward=scratch, backward=scratch)


def _normalization_need(call: Call, recompute: bool) -> Need:
    settings, [made] = call.layer.settings, call.outputs
    # The normalisation keeps its input, in float32; the activation what lies between them, or the output.
    copy = 4 * made.size if made.num_bytes < 4 * made.size else 0
    keeps_outputs = not settings["activation_first"] and settings["activation"] != "leaky_relu"
    inner = copy + made.num_bytes * (not keeps_outputs)
    scratch = 2 * 4 * made.size
    if recompute:
        return Need(keeps_inputs=True, forward=inner + scratch, backward=inner + scratch)
    return Need(keeps_inputs=True, keeps_outputs=keeps_outputs, kept=inner, forward=scratch, backward=scratch)


def _flops(call: Call) -> int:
    layer = call.layer
    given, made = (math.prod(tensors[0].shape) for tensors in (call.inputs, call.outputs))
    match layer:
        case Convolution():
            # A bias, or else scale and offset of the normalisation.
            each = 1 if layer.normalization is None else 2
            return made * (2 * math.prod(layer.convolution.kernel.shape[:-1]) + each)
        case layer if isinstance(layer, CONVOLUTIONS):
            return made * (2 * math.prod(layer.kernel.shape[:-1]) + layer.use_bias)
        case layer if isinstance(layer, TRANSPOSED):
            return 2 * given * math.prod(layer.kernel.shape[:-1]) + made * layer.use_bias
        case NormalizedActivation():
            return 0 if layer.normalization is None else 2 * made
        case Upsample():
            # A weighted sum for every value that is new along an axis.
            return 3 * (made - given)
        case LowPass():
            return 2 * made * len(LOW_PASS) * (len(call.outputs[0].shape) - 2)
        case MelSpectrogram():
            return 2 * made * call.inputs[0].shape[2]
        case MelToLinear():
            return 2 * made * layer.num_mel_bands
        case STFT() | InverseSTFT():
            spectrum = made if isinstance(layer, STFT) else given
            # The usual estimate for real values.
            return round(spectrum / layer.num_bins * 2.5 * layer.fft_length * math.log2(layer.fft_length))
    return 0


def _reach(call: Call, first, last) -> list:
    """Where each input's values lie that outputs `first` to `last` depend on, along the time axis; None: nowhere."""
    layer, length = call.layer, call.inputs[0].shape[1]
    match layer:
        case Convolution():
            kernel, strides = layer.settings["kernel_size"], layer.settings["strides"]
            before = 0 if layer.settings["padding"] == "valid" else _padding(length, kernel, strides)
            return [(strides * first - before, strides * last - before + kernel - 1)]
        case layer if isinstance(layer, CONVOLUTIONS):
            kernel, strides = (layer.kernel_size[0] - 1) * layer.dilation_rate[0] + 1, layer.strides[0]
            before = _padding(length, kernel, strides)
            return [(strides * first - before, strides * last - before + kernel - 1)]
        case layer if isinstance(layer, TRANSPOSED):
            kernel = layer.kernel_size[0]
            before = _padding(2 * length, kernel, 2)
            return [(-((kernel - 1 - before - first) // 2), (last + before) // 2)]
        case Decimate():
            return [(2 * first, 2 * last)]
        case layer if isinstance(layer, POOLINGS):
            return [(2 * first, 2 * last + 1)]
        case LowPass():
            before = 0 if layer.has_context else len(LOW_PASS) // 2
            return [(first - before, last - before + len(LOW_PASS) - 1)]
        case Upsample():
            return [(first // 2, (last + 1) // 2)]
        case CropCenter():
            start = (length - call.inputs[1].shape[1]) // 2
            return [(first + start, last + start), None]
        case CropLike():
            return [(first, last), None]
        case STFT():
            begin = (first + 1 - layer.overlap) * layer.frame_step
            end = (last + 1 - layer.overlap) * layer.frame_step + layer.frame_length
            # The first value of the window is zero.
            return [(begin + 1, end - 1)]
        case InverseSTFT():
            step, shift = layer.frame_step, layer.overlap - 1
            frames = (shift - (layer.frame_length - 1 - first) // step, shift + (last - 1) // step)
            return [frames, frames, None]
    return [(first, last)] * len(call.inputs)


def _padding(length: int, kernel: int, strides: int) -> int:
    """Zeros before an axis, so that a convolution gives one value for every `strides`."""
    return max((-(-length // strides) - 1) * strides + kernel - length, 0) // 2


def _union(spans):
    firsts, lasts = zip(*spans, strict=True)
    return np.minimum.reduce(firsts), np.maximum.reduce(lasts)


def _segment_samples(config: Config, sample_rate: int) -> int:
    return round(config.data.segment_seconds * sample_rate)


def _core_calls(network: Network, batch_size: int, num_samples: int, precision: str = "float32") -> list[Call]:
    num_channels = network.core.inputs[0].shape[-1]
    return _calls(network.core, (batch_size, num_samples + 2 * network.margin_samples, num_channels), precision)


def _calls(model: keras.Model, shape: tuple[int, ...], precision: str) -> list[Call]:
    """The layers of a Functional model and of those inside it, in the order in which they run, at this input shape."""
    item_bytes = {"float32": 4, "bfloat16": 4 if precision == "float32" else 2}
    keys: dict[int, int] = {}
    # What is forgotten gives its identity away.
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
