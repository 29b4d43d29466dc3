"""MDX23C, the third version of MDX-Net (Kim, Lee 2023, https://arxiv.org/abs/2306.09382), from PyTorch checkpoints."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from pipelines.errors import UserError
from sepnet.importers.files.archives import only_file
from sepnet.importers.files.tensors import Tensors
from sepnet.importers.files.torch_files import read_torch
from sepnet.importers.imported import Imported
from sepnet.importers.mdx_net import CHANNEL_ORDER, NUM_CHANNELS, SAMPLE_RATE, keras_kernel
from sepnet.models.bodies.tfc_tdf import TfcTdf

# Real and imaginary parts of the channels.
NUM_PARTS = 2 * NUM_CHANNELS


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The sizes of a network, by the shapes of its checkpoint's tensors.

    Attributes:
        depth: its levels.
        num_pairs: of convolutions in a block.
        filters: of each level and, last, of the bottleneck.
        num_subbands: into which frequency is folded.
        num_bins: that it sees.
        bottleneck_factor: matrices along frequency go over so many times fewer bins.
        num_sources: that it gives.
    """

    depth: int
    num_pairs: int
    filters: tuple[int, ...]
    num_subbands: int
    num_bins: int
    bottleneck_factor: int
    num_sources: int


def load(folder: pathlib.Path, options: Mapping[str, Any]) -> Imported:
    """Builds the network of a checkpoint, with all that the programs which run such files do before and after it.

    Deliberate difference: these programs cut a song into stretches of `block_samples` that begin a quarter of this
    after each other, and average what comes of them; here neighbours overlap by a second, in which they fade into each
    other. That takes a third of the time. A song's last stretch is filled with zeros to a multiple of the network's
    grid, not mirrored to a whole stretch.

    Args:
        folder: holds the file, `NAME.ckpt`.
        options: `sources`, the stems of each source that the network gives, in its order, and of what these leave, if
            there is one more; `n_fft` and `hop`, its STFT in samples, which the file does not say; `block_samples`.

    Raises:
        UserError: the file is damaged, or one of another network.
    """
    from sepnet.models.network import Branch, finish

    path = only_file(folder, ".ckpt")
    state = read_torch(path)
    if isinstance(state, Mapping):
        state = next((state[key] for key in ("state_dict", "state", "model_state_dict") if key in state), state)
    if not isinstance(state, Mapping):
        raise UserError(f"{path} holds no tensors by name")
    tensors = Tensors(path, {name: np.shape(tensor) for name, tensor in state.items()}, state.__getitem__)
    sizes = _sizes(tensors, path)
    parts = {source: tuple(stems) for source, stems in options["sources"].items()}
    if not sizes.num_sources <= len(parts) <= sizes.num_sources + 1:
        raise UserError(f"{path} gives {sizes.num_sources} sources; expected {len(parts)}, or one less")
    if sizes.num_bins > options["n_fft"] // 2 + 1:
        raise UserError(f"{path} sees {sizes.num_bins} bins; windows of {options['n_fft']} samples have fewer")
    branch = Branch(
        lambda mixture: _estimates(mixture, sizes, options, len(parts) > sizes.num_sources),
        grid_samples=options["hop"] * 2**sizes.depth,
        takes_any_length=True,
    )
    network = finish([branch], sources=list(parts), num_channels=NUM_CHANNELS, name="mdx23c")
    _fill(network.model, sizes, tensors)
    tensors.check_all_taken()
    return Imported(network, parts, SAMPLE_RATE, NUM_CHANNELS, options["block_samples"])


def _sizes(tensors: Tensors, path: pathlib.Path) -> Sizes:
    """Reads the sizes of the network off the shapes of its tensors.

    Raises:
        UserError: a tensor is missing, or the shapes are those of another network.
    """
    depth, num_pairs = tensors.count("encoder_blocks."), tensors.count("bottleneck_block.blocks.")
    first, last = tensors.shape("first_conv.weight", 4), tensors.shape("final_conv.2.weight", 4)
    bottleneck = tensors.shape("bottleneck_block.blocks.0.tdf.2.weight", 2)
    levels = (tensors.shape(f"encoder_blocks.{level}.downscale.conv.2.weight", 4)[0] for level in range(depth))
    factor, beyond = divmod(bottleneck[1], max(bottleneck[0], 1))
    num_inputs = first[1]
    if not (depth and num_inputs) or num_inputs % NUM_PARTS or last[0] % num_inputs or not factor or beyond >= factor:
        raise UserError(f"{path} holds another network than MDX23C's for stereo")
    subbands = num_inputs // NUM_PARTS
    num_bins = bottleneck[1] * 2**depth * subbands
    return Sizes(depth, num_pairs, (first[0], *levels), subbands, num_bins, factor, last[0] // num_inputs)


def _estimates(mixture, sizes: Sizes, options: Mapping[str, Any], has_remainder: bool):
    """From a waveform to those of the sources."""
    from sepnet.importers.centred_spectra import CentredInverseSTFT, CentredSTFT
    from sepnet.models.layers.complex_spectra import ComplexEstimates, Parts
    from sepnet.models.layers.frequency import FromFeatures, ToFeatures
    from sepnet.models.layers.lengths import CropLike, PadMargin
    from sepnet.models.layers.magnitudes import AddBins, LowestBins
    from sepnet.models.layers.sources import Remainder

    n_fft, hop, grid = options["n_fft"], options["hop"], 2**sizes.depth
    # Frames lie at both ends of a signal, so one that has as many as the network takes is a step shorter.
    padded = PadMargin(0, hop * (grid - 1), hop * grid, dtype="float32", name="pad")(mixture)
    real, imag = CentredSTFT(frame_length=n_fft, frame_step=hop, name="stft")(padded)
    seen = LowestBins(sizes.num_bins, dtype="float32", name="lowest_bins")(
        Parts(False, dtype="float32", name="parts")(real, imag)
    )
    body = TfcTdf(
        block="residual",
        convolutions=sizes.num_pairs,
        skips="concatenate",
        bottleneck_factor=sizes.bottleneck_factor,
        smallest_bottleneck=1,
        time_levels=sizes.depth,
        normalization="instance",
        activation="gelu",
    )
    features = ToFeatures(sizes.num_subbands, name="to_features")(seen)
    num_outputs = sizes.num_sources * NUM_PARTS * sizes.num_subbands
    raw = body.apply(features, sizes.filters, num_outputs, recompute=False)
    raw = FromFeatures(sizes.num_subbands, dtype="float32", name="from_features")(raw)
    whole = AddBins(n_fft // 2 + 1 - sizes.num_bins, False, dtype="float32", name="add_bins")(raw)
    estimates = ComplexEstimates(sizes.num_sources, "spectra", dtype="float32", name="estimates")(whole, real, imag)
    waveforms = CentredInverseSTFT(frame_length=n_fft, frame_step=hop, name="inverse_stft")(*estimates, padded)
    waveforms = CropLike(dtype="float32", name="crop")(waveforms, mixture)
    return Remainder(dtype="float32", name="remainder")(waveforms, mixture) if has_remainder else waveforms


def _fill(model, sizes: Sizes, tensors: Tensors) -> None:
    def fill(layer: str, name: str, change=keras_kernel) -> None:
        tensors.into(model.get_layer(layer).kernel, f"{name}.weight", change=change)

    def fill_norm(layer: str, name: str) -> None:
        norm = model.get_layer(layer).normalization
        tensors.into(norm.gamma, f"{name}.weight")
        tensors.into(norm.beta, f"{name}.bias")

    def fill_blocks(block: str, name: str) -> None:
        for index in range(sizes.num_pairs):
            place = f"{name}.blocks.{index}"
            fill(f"{block}_{index}_around", f"{place}.shortcut")
            for number, convolution in enumerate(("tfc1", "tfc2")):
                fill_norm(f"{block}_{2 * index + number}_norm", f"{place}.{convolution}.0")
                fill(f"{block}_{2 * index + number}", f"{place}.{convolution}.2")
            for number, (norm, matrix) in enumerate(((0, 2), (3, 5))):
                fill_norm(f"{block}_{index}_matrices_norm_{number}", f"{place}.tdf.{norm}")
                fill(f"{block}_{index}_matrices_{number}", f"{place}.tdf.{matrix}", np.transpose)

    inputs, outputs = _places(sizes.num_subbands, 1), _places(sizes.num_subbands, sizes.num_sources)
    fill("first", "first_conv", lambda kernel: keras_kernel(kernel)[:, :, inputs])
    for level in range(sizes.depth):
        fill_blocks(f"encoder_{level}", f"encoder_blocks.{level}.tfc_tdf")
        fill_norm(f"encoder_{level}_down_norm", f"encoder_blocks.{level}.downscale.conv.0")
        fill(f"encoder_{level}_down", f"encoder_blocks.{level}.downscale.conv.2")
        decoder = f"decoder_blocks.{sizes.depth - 1 - level}"
        fill_norm(f"decoder_{level}_norm", f"{decoder}.upscale.conv.0")
        fill(f"decoder_{level}_upsample", f"{decoder}.upscale.conv.2")
        fill_blocks(f"decoder_{level}", f"{decoder}.tfc_tdf")
    fill_blocks("bottleneck", "bottleneck_block")
    features = np.arange(len(inputs), len(inputs) + sizes.filters[0])
    fill("last", "final_conv.0", lambda kernel: keras_kernel(kernel)[:, :, [*inputs, *features]])
    fill("stems", "final_conv.2", lambda kernel: keras_kernel(kernel)[..., outputs])


def _places(num_subbands: int, num_sources: int) -> np.ndarray:
    """The published network's index of each channel of a folded spectrum: here bands come first, there last."""
    places = np.arange(num_sources * NUM_PARTS * num_subbands).reshape(num_sources, NUM_PARTS, num_subbands)
    return places[:, CHANNEL_ORDER].transpose(2, 0, 1).reshape(-1)
