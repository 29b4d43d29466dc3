"""The whole state of a training run in one file, so that a run that was killed goes on as if nothing had happened."""

import json
import math
import pathlib
import zipfile
from typing import Any

import keras
import numpy as np

from pipelines.errors import UserError
from pipelines.files import whole_file

# Of HDF5, for each array, at the most.
OVERHEAD_BYTES = 8192


def save_state(path: pathlib.Path, trainer: keras.Model, state: dict[str, Any]) -> None:
    """Writes weights, optimizer, averages and random state of a trainer, and `state`, whole or not at all.

    Trainer and optimizer must be built. (Keras' own weight files leave the random state out, and a run that goes on
    would draw other augmentations.)
    """
    arrays = {f"variable_{index}": np.asarray(variable) for index, variable in enumerate(_variables(trainer))}
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, state=json.dumps(state), **arrays)


def save_weights(path: pathlib.Path, model: keras.Model) -> None:
    """Writes weights for `model.load_weights`, whole or not at all.

    Raises:
        UserError: the disk is full, or the file cannot be written.
    """
    with whole_file(path) as temporary:
        # HDF5 ends the whole process (h5py 3.16, signal 11) where the disk is full. Python has an exception for it.
        temporary.write_bytes(bytes(sum(OVERHEAD_BYTES + 4 * math.prod(weight.shape) for weight in model.weights)))
        model.save_weights(temporary)


def load_state(path: pathlib.Path, trainer: keras.Model) -> dict[str, Any]:
    """Restores what `save_state` wrote.

    Args:
        path: the file.
        trainer: built and compiled as the one that was saved, with its optimizer built.

    Returns:
        The `state` that was saved.

    Raises:
        UserError: the file is missing, damaged, or of another configuration.
    """
    try:
        # NumPy leaves a file that it opened itself, and cannot read, open.
        with path.open("rb") as opened, np.load(opened) as file:
            state = json.loads(str(file["state"]))
            arrays = [file[f"variable_{index}"] for index in range(len(file.files) - 1)]
    except FileNotFoundError as error:
        raise UserError(
            f"there is no checkpoint {path}; the run has not ended its first epoch: start it anew"
        ) from error
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"the checkpoint {path} is damaged ({error}); start the run anew") from error
    variables = _variables(trainer)
    if [array.shape for array in arrays] != [tuple(variable.shape) for variable in variables]:
        raise UserError(f"the checkpoint {path} belongs to another configuration; it cannot go on with this one")
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
    return state


def _variables(trainer: keras.Model) -> list:
    return [*trainer.variables, *trainer.optimizer.variables]
