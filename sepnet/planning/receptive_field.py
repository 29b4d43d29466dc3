"""Finds the samples of the mixture that one output sample depends on."""

import numpy as np

from pipelines.batches.spectra import STFT, InverseSTFT
from sepnet.models.blocks import LOW_PASS, Convolution, CropCenter, CropLike, Decimate, LowPass, Upsample
from sepnet.models.network import Network
from sepnet.planning.graph_walk import CONVOLUTIONS, POOLINGS, TRANSPOSED, Call, core_calls


def receptive_field_samples(network: Network) -> int | None:
    """How many samples one output sample depends on, for the one that sees most; None if it sees all of them."""
    if network.context_samples is None:
        return None
    calls = core_calls(network, 1, network.training_samples(1))
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
