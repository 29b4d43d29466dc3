"""The weights of MDX-Net out of a PyTorch checkpoint."""

import pathlib
from collections.abc import Mapping

import numpy as np

from pipelines.errors import UserError, one_line
from sepnet.importers.files.tensors import Tensors
from sepnet.importers.files.torch_files import read_torch
from sepnet.importers.mdx_onnx import Block, MdxWeights, Weighted

# PyTorch's own.
EPSILON = 1e-5
SETTINGS = ("dim_f", "dim_t", "n_fft")
# The STFT's own, and counters.
IGNORED = ("window", "freq_pad", "*.num_batches_tracked")


def read_checkpoint(path: pathlib.Path) -> MdxWeights:
    """Reads the weights of a file with `state_dict` and `hyper_parameters`, as Lightning writes it.

    Raises:
        UserError: the file is damaged, wants more than tensors, or holds another network.
    """
    content = read_torch(path)
    state = content.get("state_dict") if isinstance(content, Mapping) else None
    settings = content.get("hyper_parameters") if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not isinstance(settings, Mapping):
        raise UserError(f"{path} does not hold state_dict and hyper_parameters")
    if faulty := [key for key in SETTINGS if type(settings.get(key)) is not int or settings[key] < 1]:
        raise UserError(f"{path} has no numbers above 0 as {' and '.join(faulty)} in its hyper_parameters")
    tensors = Tensors(path, {name: np.shape(tensor) for name, tensor in state.items()}, state.__getitem__, IGNORED)
    levels = range(tensors.count("ds."))
    try:
        weights = MdxWeights(
            settings["dim_f"],
            settings["dim_t"],
            _convolution(tensors, "first_conv.0", "first_conv.1"),
            tuple(_block(tensors, f"encoding_blocks.{level}") for level in levels),
            tuple(_convolution(tensors, f"ds.{level}.0", f"ds.{level}.1") for level in levels),
            _block(tensors, "bottleneck_block"),
            tuple(_convolution(tensors, f"us.{level}.0", f"us.{level}.1") for level in levels),
            tuple(_block(tensors, f"decoding_blocks.{level}") for level in levels),
            Weighted(tensors.take("final_conv.0.weight"), tensors.take("final_conv.0.bias")),
            settings["n_fft"],
        )
    except ValueError as error:
        raise UserError(f"{path} holds another network than MDX-Net's: {one_line(error)}") from error
    tensors.check_all_taken()
    return weights


def _convolution(tensors: Tensors, name: str, norm: str, change=lambda kernel: kernel) -> Weighted:
    bias = tensors.take(f"{name}.bias") if f"{name}.bias" in tensors.names else None
    statistics = tuple(tensors.take(f"{norm}.{each}") for each in ("weight", "bias", "running_mean", "running_var"))
    return Weighted(change(tensors.take(f"{name}.weight")), bias, statistics, EPSILON)


def _block(tensors: Tensors, name: str) -> Block:
    place = f"{name}.tfc.H."
    convolutions = (
        _convolution(tensors, f"{place}{index}.0", f"{place}{index}.1") for index in range(tensors.count(place))
    )
    matrices = (
        _convolution(tensors, f"{name}.tdf.{index}", f"{name}.tdf.{index + 1}", np.transpose) for index in (0, 3)
    )
    return Block(tuple(convolutions), tuple(matrices))
