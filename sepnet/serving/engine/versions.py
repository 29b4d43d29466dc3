"""One version of a model in memory: its signatures, its contract, and who is using it."""

import json
import pathlib
from typing import Any

import numpy as np

from pipelines.errors import UserError
from sepnet.export.saved_model import SavedModel
from sepnet.export.write import WARMUP_SECONDS
from sepnet.separation.separator import block_and_context

# TensorFlow Serving's names of what a version is going through.
LOADING = "LOADING"
AVAILABLE = "AVAILABLE"
UNLOADING = "UNLOADING"
END = "END"


class LoadedVersion:
    """A version that is ready to run.

    Attributes:
        name: of the model.
        number: of the version.
        contract: content of its `assets.extra/sepnet.json`.
        signature_defs: its inputs and outputs, as TensorFlow Serving's metadata writes them.
        leases: number of requests that use it; kept by the store.

    Raises:
        UserError: the version is damaged, or is none of this project's.
    """

    def __init__(self, name: str, number: int, path: pathlib.Path):
        import tensorflow as tf

        self.name, self.number, self.leases = name, number, 0
        self._model = SavedModel(path)
        self.contract: dict[str, Any] = self._model.contract
        self.signatures = self._model.signatures
        try:
            self.signature_defs = _signature_defs((path / "saved_model.pb").read_bytes())
            # A first run shows damage inside the model, and spares requests the slowest run.
            num_samples = round(WARMUP_SECONDS * self.contract["sample_rate"])
            self._model(np.zeros((1, num_samples, self.contract["num_channels"]), np.float32))
            block, context = block_and_context(
                *(self.contract[key] for key in ("grid_samples", "context_samples", "sample_rate")),
                block_samples=self.contract.get("block_samples"),
            )
            self._window_samples = block + 2 * (context or 0)
        except (OSError, KeyError, TypeError, tf.errors.OpError) as error:
            raise UserError(f"{path} is damaged ({type(error).__name__}: {error}); export the model again") from error

    def most_samples(self, seconds: float) -> int:
        """Returns the samples that may run at once: `seconds`, or one block of a long song with its context."""
        return max(round(seconds * self.contract["sample_rate"]), self._window_samples)

    def summary(self) -> dict[str, Any]:
        """Returns the figures of the model that the page shows."""
        keys = ("family", "depth", "sources", "sample_rate", "num_channels", "metrics", "baselines", "costs")
        summary = {key: self.contract.get(key) for key in keys} | {"name": self.name, "version": self.number}
        # NaN and infinity become null: browsers cannot parse them in JSON.
        return json.loads(json.dumps(summary), parse_constant=lambda _: None)


def fingerprint(path: pathlib.Path) -> tuple:
    """Returns a value that changes when the files of a version do."""
    files = sorted(entry for entry in path.rglob("*") if entry.is_file())
    stats = [(str(file.relative_to(path)), file.stat()) for file in files]
    return tuple((name, stat.st_size, stat.st_mtime_ns, stat.st_ino) for name, stat in stats)


def _signature_defs(saved_model: bytes) -> dict[str, Any]:
    from tensorflow.core.framework import types_pb2
    from tensorflow.core.protobuf import saved_model_pb2

    def tensors(infos) -> dict[str, Any]:
        return {
            key: {
                "dtype": types_pb2.DataType.Name(info.dtype),
                "tensor_shape": {
                    "dim": [{"size": str(dim.size), "name": dim.name} for dim in info.tensor_shape.dim],
                    "unknown_rank": info.tensor_shape.unknown_rank,
                },
                "name": info.name,
            }
            for key, info in infos.items()
        }

    graph = saved_model_pb2.SavedModel.FromString(saved_model).meta_graphs[0]
    return {
        name: {
            "inputs": tensors(signature.inputs),
            "outputs": tensors(signature.outputs),
            "method_name": signature.method_name,
        }
        for name, signature in graph.signature_def.items()
    }
