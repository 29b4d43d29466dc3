"""Counts the floating-point operations of a network's forward pass."""

import math

from pipelines.batches.spectra import STFT, InverseSTFT, MelSpectrogram, MelToLinear
from sepnet.models.blocks import LOW_PASS, Convolution, LowPass, NormalizedActivation, Upsample
from sepnet.models.network import Network
from sepnet.planning.graph_walk import CONVOLUTIONS, TRANSPOSED, Call, core_calls


def flops(network: Network, num_samples: int) -> int:
    """Floating-point operations of the forward pass of training on one example; a multiply-add is two.

    Counted are convolutions, normalisation, interpolation, mel bands and Fourier transforms; what is done to each value
    by itself, such as an activation, is not.

    Args:
        network: of any family.
        num_samples: length of the estimates, one that `network.training_samples` gives.
    """
    return sum(map(_flops, core_calls(network, 1, num_samples)))


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
