"""The weights of MDX-Net out of a PyTorch checkpoint."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from pipelines.errors import UserError
from sepnet.importers.mdx_onnx import Block, MdxWeights, Weighted
from sepnet.importers.torch_files import read_torch

# PyTorch's own.
EPSILON = 1e-5
SETTINGS = ("dim_f", "dim_t")


def read_checkpoint(path: pathlib.Path) -> MdxWeights:
    """Reads the weights of a file with `state_dict` and `hyper_parameters`, as Lightning writes it.

    Raises:
        UserError: the file is damaged, wants more than tensors, or holds another network.
    """
    content = read_torch(path)
    state = content.get("state_dict") if isinstance(content, Mapping) else None
    settings = content.get("hyper_parameters") if isinstance(content, Mapping) else None
    if (
        not isinstance(state, Mapping)
        or not isinstance(settings, Mapping)
        or not all(key in settings for key in SETTINGS)
    ):
        raise UserError(f"{path} does not hold state_dict and hyper_parameters with {' and '.join(SETTINGS)}")
    state = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    for unused in ("window", "freq_pad"):
        state.pop(unused, None)
    taken = _Taken(path, state)
    num_levels = len({name.split(".")[1] for name in state if name.startswith("ds.")})
    weights = MdxWeights(
        settings["dim_f"],
        settings["dim_t"],
        taken.convolution("first_conv.0", "first_conv.1"),
        tuple(taken.block(f"encoding_blocks.{level}") for level in range(num_levels)),
        tuple(taken.convolution(f"ds.{level}.0", f"ds.{level}.1") for level in range(num_levels)),
        taken.block("bottleneck_block"),
        tuple(taken.convolution(f"us.{level}.0", f"us.{level}.1") for level in range(num_levels)),
        tuple(taken.block(f"decoding_blocks.{level}") for level in range(num_levels)),
        Weighted(taken("final_conv.0.weight"), taken("final_conv.0.bias")),
    )
    taken.check_all()
    return weights


class _Taken:
    """The tensors of a `state_dict`, each of which is to be taken."""

    def __init__(self, path: pathlib.Path, state: Mapping[str, Any]):
        self._path, self._state, self._left = path, state, set(state)

    def __call__(self, name: str) -> np.ndarray:
        if name not in self._state:
            raise UserError(f"{self._path} has no tensor {name}; it holds another network, or not all of one")
        self._left.discard(name)
        return np.asarray(self._state[name], np.float32)

    def convolution(self, name: str, norm: str, kernel=lambda kernel: kernel) -> Weighted:
        bias = self(f"{name}.bias") if f"{name}.bias" in self._state else None
        statistics = tuple(self(f"{norm}.{each}") for each in ("weight", "bias", "running_mean", "running_var"))
        return Weighted(kernel(self(f"{name}.weight")), bias, statistics, EPSILON)

    def block(self, name: str) -> Block:
        count = len({each.split(".H.")[1].split(".")[0] for each in self._state if each.startswith(f"{name}.tfc.H.")})
        convolutions = (
            self.convolution(f"{name}.tfc.H.{index}.0", f"{name}.tfc.H.{index}.1") for index in range(count)
        )
        matrices = (
            self.convolution(f"{name}.tdf.{index}", f"{name}.tdf.{index + 1}", np.transpose) for index in (0, 3)
        )
        return Block(tuple(convolutions), tuple(matrices))

    def check_all(self) -> None:
        if self._left:
            raise UserError(
                f"{self._path} holds {', '.join(sorted(self._left)[:3])}, which the network does not have; it is "
                "another network"
            )
