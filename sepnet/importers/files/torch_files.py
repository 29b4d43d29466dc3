"""Tensors out of PyTorch's files, without PyTorch, which takes gigabytes, and without running what pickles ask for."""

import collections
import dataclasses
import io
import math
import pathlib
import pickle
import zipfile
from typing import Any

import numpy as np

from pipelines.errors import UserError, one_line
from sepnet.importers.files.archives import DAMAGES

# The types of stored numbers; bfloat16 is the upper half of float32.
STORAGES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "BoolStorage": "?",
}


@dataclasses.dataclass(frozen=True)
class _Storage:
    """Numbers side by side, of which tensors are parts."""

    name: str
    values: np.ndarray


def read_torch(path: pathlib.Path) -> Any:
    """Reads a file of `torch.save`, with tensors as arrays.

    Containers, numbers, texts and tensors are read; a pickle that names any other class or function is refused before
    anything of it is called.

    Raises:
        UserError: the file is damaged, of PyTorch before 1.6, or wants more than tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = next(name.removesuffix("data.pkl") for name in archive.namelist() if name.endswith("/data.pkl"))
            return _Unpickler(path, archive, root).load()
    except (
        *DAMAGES,
        StopIteration,
        KeyError,
        ValueError,
        TypeError,
        IndexError,
        AttributeError,
        pickle.PickleError,
    ) as error:
        raise UserError(f"{path} is damaged, or no file of PyTorch 1.6 or newer: {one_line(error)[:120]}") from error


class _Unpickler(pickle.Unpickler):
    def __init__(self, path: pathlib.Path, archive: zipfile.ZipFile, root: str):
        super().__init__(io.BytesIO(archive.read(f"{root}data.pkl")))
        self._path, self._archive, self._root = path, archive, root

    def find_class(self, module: str, name: str) -> Any:
        known = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
            **{("torch", storage): storage for storage in STORAGES},
        }
        if (module, name) not in known:
            raise UserError(
                f"{self._path} asks for {module}.{name}, which tensors do not need, so it is not read; save its "
                "state_dict alone"
            )
        return known[module, name]

    def persistent_load(self, pid: tuple) -> _Storage:
        _, storage, key, *_ = pid
        values = np.frombuffer(self._archive.read(f"{self._root}data/{key}"), STORAGES[storage])
        if storage == "BFloat16Storage":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        return _Storage(key, values)


def _tensor(storage: _Storage, offset: int, size: tuple, stride: tuple, *_) -> np.ndarray:
    """A tensor as an array of its own."""
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if min((offset, *size, *stride)) < 0 or (math.prod(size) and last >= len(storage.values)):
        raise ValueError(f"a tensor reaches beyond the numbers {storage.name}")
    steps = [step * storage.values.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage.values[offset:], size, steps).copy()
