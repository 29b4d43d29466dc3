"""MDX-Net from ONNX files and PyTorch checkpoints (second version: Kim, Choi, Chung, Lee, Jung 2021, https://arxiv.org/abs/2111.12203)."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from pipelines.errors import UserError
from sepnet.importers.files.archives import only_file
from sepnet.importers.files.tensors import assign
from sepnet.importers.imported import Imported
from sepnet.importers.mdx_checkpoint import read_checkpoint
from sepnet.importers.mdx_onnx import MdxWeights, Weighted, read_onnx
from sepnet.models.bodies.tfc_tdf import TfcTdf

SAMPLE_RATE, NUM_CHANNELS = 44_100, 2
# Published: left real, left imaginary, right real, right imaginary. Here: both real parts, then both imaginary ones.
CHANNEL_ORDER = (0, 2, 1, 3)
# Of Keras' batch normalisation.
EPSILON = 1e-3


def load(folder: pathlib.Path, options: Mapping[str, Any]) -> Imported:
    """Builds the network of a file, with all that the programs which run such files do before and after it.

    Deliberate difference: these programs cut a song into stretches of as many frames as the network was trained on,
    and know nothing around them but zeros; here a song is one, and its beginning lies as that of a stretch does. The
    network sees 282 frames to either side, more than such a stretch has, so what it gives differs a little everywhere
    in songs that are longer.

    Args:
        folder: holds the file, `NAME.onnx` or `NAME.ckpt`.
        options: `sources`, the stems of the source that the network gives and of what it leaves; `n_fft` and `hop`, its
            STFT in samples, which the file does not say; `compensate`, by which the source is multiplied;
            `zero_lowest`, how many of the lowest bins the network does not see.

    Raises:
        UserError: the file is damaged, or one of another network.
    """
    from sepnet.models.network import Branch, finish

    readers = {".onnx": read_onnx, ".ckpt": read_checkpoint}
    path = only_file(folder, *readers)
    weights = readers[path.suffix](path)
    if weights.n_fft not in (None, options["n_fft"]):
        raise UserError(f"{path} has windows of {weights.n_fft} samples; here {options['n_fft']} are expected")
    parts = {source: tuple(stems) for source, stems in options["sources"].items()}
    branch = Branch(
        lambda mixture: _estimates(mixture, weights, options),
        grid_samples=options["hop"] * weights.num_frames,
        takes_any_length=True,
    )
    network = finish([branch], sources=list(parts), num_channels=NUM_CHANNELS, name="mdx_net")
    _fill(network.model, weights, path)
    return Imported(network, parts, SAMPLE_RATE, NUM_CHANNELS)


def _estimates(mixture, weights: MdxWeights, options: Mapping[str, Any]):
    """From a waveform to those of the source and of what it leaves."""
    from pipelines.batches.spectra import make_spectra
    from sepnet.models.layers.complex_spectra import ComplexEstimates, Parts
    from sepnet.models.layers.frequency import FromFeatures, ToFeatures
    from sepnet.models.layers.lengths import CropLike, Delay, PadToGrid
    from sepnet.models.layers.magnitudes import AddBins, LowestBins, Scale, ZeroLowestBins
    from sepnet.models.layers.sources import Remainder

    n_fft, hop = options["n_fft"], options["hop"]
    spectra = make_spectra(frame_length=n_fft, frame_step=hop)
    # The programs put half a window of zeros before the song, and their first frame half a window before these. So
    # many zeros bring this STFT's first frame to the same place.
    overlap = -(-n_fft // hop)
    delay = n_fft - (overlap - 1) * hop
    delayed = Delay(delay, dtype="float32", name="delay")(mixture)
    real, imag = spectra.stft(delayed)
    seen = LowestBins(weights.num_bins, dtype="float32", name="lowest_bins")(
        Parts(False, dtype="float32", name="parts")(real, imag)
    )
    if options["zero_lowest"]:
        seen = ZeroLowestBins(options["zero_lowest"], dtype="float32", name="zero_lowest_bins")(seen)
    padded = PadToGrid((1, 1, weights.num_frames, 1), dtype="float32", name="pad")(seen)
    depth = len(weights.encoders)
    body = TfcTdf(
        block="plain",
        convolutions=len(weights.bottleneck.convolutions),
        skips="multiply",
        bottleneck_factor=weights.bottleneck_factor,
        smallest_bottleneck=1,
        time_levels=depth,
        normalization="batch",
        activation="relu",
    )
    filters = [weights.num_filters * (level + 1) for level in range(depth + 1)]
    features = ToFeatures(name="to_features")(padded)
    raw = body.apply(features, filters, 2 * NUM_CHANNELS, recompute=False)
    raw = CropLike(channel_axis=1, dtype="float32", name="crop")(
        FromFeatures(dtype="float32", name="from_features")(raw), seen
    )
    missing = n_fft // 2 + 1 - weights.num_bins
    whole = AddBins(missing, False, dtype="float32", name="add_bins")(raw)
    estimate = ComplexEstimates(1, "spectra", dtype="float32", name="estimate")(whole, real, imag)
    source = Delay(-delay, dtype="float32", name="undo_delay")(spectra.inverse_stft(*estimate, delayed))
    source = Scale(options["compensate"], dtype="float32", name="compensate")(source)
    return Remainder(dtype="float32", name="remainder")(source, mixture)


def _fill(model, weights: MdxWeights, path: pathlib.Path) -> None:
    def fill(layer_name: str, kernel, norm, weighted: Weighted, change=lambda kernel: kernel) -> None:
        assign(kernel, change(weighted.kernel), path, layer_name)
        variables = norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance
        for variable, value in zip(variables, _norm(weighted), strict=True):
            assign(variable, value, path, f"{layer_name}'s normalisation")

    def fill_convolution(name: str, weighted: Weighted, order=slice(None)) -> None:
        layer = model.get_layer(name)
        fill(
            name,
            layer.convolution.kernel,
            layer.normalization,
            weighted,
            lambda kernel: keras_kernel(kernel)[:, :, order],
        )

    def fill_block(name: str, block) -> None:
        for index, weighted in enumerate(block.convolutions):
            fill_convolution(f"{name}_{index}", weighted)
        for index, weighted in enumerate(block.matrices):
            norm = model.get_layer(f"{name}_matrices_norm_{index}").normalization
            fill(f"{name}_matrices_{index}", model.get_layer(f"{name}_matrices_{index}").kernel, norm, weighted)

    fill_convolution("first", weights.first, list(CHANNEL_ORDER))
    for level, (block, down) in enumerate(zip(weights.encoders, weights.downs, strict=True)):
        fill_block(f"encoder_{level}", block)
        fill_convolution(f"encoder_{level}_down", down)
    fill_block("bottleneck", weights.bottleneck)
    for level, (up, block) in enumerate(zip(reversed(weights.ups), reversed(weights.decoders), strict=True)):
        layer, norm = model.get_layer(f"decoder_{level}_upsample"), model.get_layer(f"decoder_{level}_norm")
        fill(f"decoder_{level}_upsample", layer.kernel, norm.normalization, up, keras_kernel)
        fill_block(f"decoder_{level}", block)
    last = model.get_layer("stems")
    assign(last.kernel, keras_kernel(weights.last.kernel)[..., CHANNEL_ORDER], path, "stems")
    assign(last.bias, weights.last.offset[list(CHANNEL_ORDER)], path, "stems")


def keras_kernel(kernel: np.ndarray) -> np.ndarray:
    """A convolution's kernel `[out, in, frames, bins]`, or a transposed one's `[in, out, ...]`, in Keras' order."""
    return kernel.transpose(2, 3, 1, 0)


def _norm(weighted: Weighted) -> tuple[np.ndarray, ...]:
    """Gamma, beta, moving mean and variance of Keras' batch normalisation, whose epsilon is another."""
    if weighted.norm is None:
        # Folded into the convolution before it: what is left of it is its offset.
        ones = np.ones_like(weighted.offset)
        return ones, weighted.offset, 0 * ones, (1 - EPSILON) * ones
    scale, offset, mean, variance = weighted.norm
    scale = scale * np.sqrt((variance + EPSILON) / (variance + weighted.epsilon))
    return scale, offset, mean - (0 if weighted.offset is None else weighted.offset), variance
