"""Predicts the peak memory of a training step, and of separating a block.

The memory of a training step is found by going through it, forward and back, and counting what is there:

- In float32: weights, gradients (each from the moment its layer has one), the moments of the optimizer, and a
  copy each for averaged weights and for accumulation. Mixed precision keeps the kernels once more, in 2 bytes.
- Features, 4 bytes a value, or 2 under mixed precision, until the last layer has used them. For the gradient TensorFlow
  keeps the input of every convolution (where features are joined, the joined copy), the input of LeakyReLU and
  `Rectify` or the output of ReLU and ELU, the input of a normalisation (always float32), both sides of a max pooling,
  masks, and the phases that magnitudes were given. Interpolation, decimation, other pooling and the STFT keep nothing.
- With recomputation, of a convolution, its normalisation and its activation only the input is kept. The rest is there
  again while their gradient is computed.
- While the optimizer works, `UPDATED` copies of all trained weights: it begins with those whose gradient is there while
  TensorFlow still computes others. By configuration it is 1 to 3, with every optimizer.
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

import math
from collections import defaultdict
from collections.abc import Sequence

from sepnet.config.config import Config
from sepnet.config.training import OPTIMIZERS, Training
from sepnet.models.graph_walk import Call, calls
from sepnet.models.layers.plain import Memory
from sepnet.models.network import Network
from sepnet.planning.untrained import untrained
from sepnet.separation.separator import block_and_context
from sepnet.training.losses import RESOLUTIONS

ALLOCATED = 1.05
POOLED = 1.45
UPDATED = 2
PROCESS_BYTES = 0.85e9


def training_bytes(config: Config, sample_rate: int, device: str = "gpu", network: Network | None = None) -> int:
    """Peak memory of a training step on each device, without XLA; validation, 4 segments at a time, is not in it.

    Args:
        config: checked config whose depth fits its segment.
        sample_rate: Hz.
        device: "cpu" or "gpu", what the bytes count; see the top of the file.
        network: what `untrained` gives for this config, if it is there already.
    """
    network = network or untrained(config, sample_rate)
    training, num_sources = config.training, len(config.data.parts)
    num_samples = network.training_samples(config.data.segment_samples(sample_rate))
    batch_size = training.batch_size // training.devices
    layers = core_calls(network, batch_size, num_samples, training.precision)
    weights = sum(math.prod(weight.shape) for weight in network.core.weights)
    trained = sum(call.parameters for call in layers)
    moments = OPTIMIZERS[training.optimizer].num_moments + (training.ema > 0) + (training.accumulation > 1)
    half = 2 * trained if training.precision != "float32" else 0
    # One float32 value for each sample of each stem; the batch itself has 2 bytes a value.
    audio = 4 * batch_size * num_samples * num_sources * config.data.num_channels
    always = 4 * (weights + moments * trained) + half + audio // 2 + audio
    peak = always + _training_peak(layers, audio, training, config.model.recompute)
    return _on_device(peak, device)


def separation_bytes(config: Config, sample_rate: int, device: str = "gpu", network: Network | None = None) -> int:
    """Peak memory of separating a block of a song, as `sepnet.Separator` cuts it; arguments as for `training_bytes`."""
    network = network or untrained(config, sample_rate)
    return block_bytes(network, block_samples(network, sample_rate), device, config.training.precision)


def block_bytes(network: Network, block: int, device: str, precision: str = "float32") -> int:
    """The same for any network, given so many samples at once."""
    layers = core_calls(network, 1, network.training_samples(block), precision)
    last_use = {tensor.key: index for index, call in enumerate(layers) for tensor in call.inputs}
    live = peak = 4 * network.model.count_params()
    for index, call in enumerate(layers):
        live += sum(tensor.num_bytes for tensor in call.outputs)
        peak = max(peak, live + call.memory().forward)
        live -= sum(tensor.num_bytes for tensor in set(call.inputs) if last_use[tensor.key] == index)
    return _on_device(peak, device)


def core_calls(network: Network, batch_size: int, num_samples: int, precision: str = "float32") -> list[Call]:
    """The calls of what is trained, `network.core`, for estimates of `num_samples` samples."""
    num_channels = network.core.inputs[0].shape[-1]
    shape = (batch_size, num_samples + 2 * network.margin_samples, num_channels)
    return calls(network.core, shape, half=precision != "float32")


def block_samples(network: Network, sample_rate: int, usual: int | None = None) -> int:
    """Samples of a song that the model sees at once when it is separated: a block with what lies around it.

    Args:
        network: of any family.
        sample_rate: Hz.
        usual: as `block_samples` of `block_and_context`.
    """
    block, context = block_and_context(network.grid_samples, network.reach_samples, sample_rate, block_samples=usual)
    return block + 2 * (context or 0)


def _on_device(num_bytes: int, device: str) -> int:
    return round(PROCESS_BYTES + POOLED * num_bytes if device == "cpu" else ALLOCATED * num_bytes)


def _training_peak(layers: Sequence[Call], audio: int, training: Training, recompute: bool) -> int:
    """The most bytes beside weights and batch that are there at once; `audio` is the size of all sources."""
    differentiable: set[int] = set()
    needs: list[Memory] = []
    # By tensor: the calls that need it, forward or (counted on from the end) for the gradient.
    until: dict[int, int] = {}
    for index, call in enumerate(layers):
        has_gradient = bool(call.parameters) or any(tensor.key in differentiable for tensor in call.inputs)
        if has_gradient:
            differentiable |= {tensor.key for tensor in call.outputs}
        need = call.memory(recompute)
        needs.append(need if has_gradient else Memory(forward=need.forward))
        kept = (*call.inputs * needs[-1].keeps_inputs, *call.outputs * needs[-1].keeps_outputs)
        until |= {tensor.key: max(index, until.get(tensor.key, 0)) for tensor in call.inputs}
        # Going back, the call at `index` comes at `2 * len(layers) - index`; the first that keeps a tensor is the last.
        for tensor in kept:
            until[tensor.key] = max(2 * len(layers) - index, until.get(tensor.key, 0))

    ending = defaultdict(int)
    live = peak = 0
    for index, (call, need) in enumerate(zip(layers, needs, strict=True)):
        for tensor in call.outputs:
            live += tensor.num_bytes
            ending[until.get(tensor.key, len(layers))] += tensor.num_bytes
        live += need.kept
        peak = max(peak, live + need.forward)
        live -= ending[index]

    kept, scratch = _loss_need(audio, training.loss)
    peak = max(peak, live + audio + kept + scratch)
    live += kept - ending[len(layers)]
    gradients = {tensor.key: tensor.num_bytes for tensor in layers[-1].outputs}
    live += sum(gradients.values())
    released = 0
    for index in reversed(range(len(layers))):
        call, need = layers[index], needs[index]
        for tensor in call.inputs:
            if tensor.key in differentiable and tensor.key not in gradients:
                gradients[tensor.key] = tensor.num_bytes
                live += tensor.num_bytes
        live += 4 * call.parameters
        peak = max(peak, live + need.backward)
        live -= released + need.kept + ending[2 * len(layers) - index]
        released = sum(gradients.pop(tensor.key, 0) for tensor in call.outputs)
    return peak + UPDATED * 4 * sum(call.parameters for call in layers)


def _loss_need(audio: int, loss: str) -> tuple[int, int]:
    """Bytes that the loss keeps for the gradient, and those that it and the metrics need for a moment."""
    if loss in ("mse", "l1"):
        return audio, 2 * audio
    # With frames that move by a quarter of themselves a spectrum has twice as many values as the audio, real and
    # imaginary each. Kept are both, the magnitude and the difference.
    kept = 4 * 2 * audio
    num_resolutions = len(RESOLUTIONS) if loss == "multi_resolution_stft" else 1
    return num_resolutions * kept, 2 * kept
