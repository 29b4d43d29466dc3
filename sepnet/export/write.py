"""SavedModels under `saved_models/<name>/<version>/`, and the contract file that says what each is."""

import contextlib
import functools
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pipelines.errors import UserError, one_line
from pipelines.files import folder_lock, whole_folder
from sepnet.config.run_folder import Run
from sepnet.export.checksums import write_checksums
from sepnet.export.contract import CONTRACT_FILE, make_contract
from sepnet.export.signatures import BYTES_SUFFIX, SERVING_DEFAULT, TENSOR, WAV, serving_functions
from sepnet.export.warmup import WARMUP_FILE, write_warmup
from sepnet.models.keras_settings import precision

WARMUP_SECONDS = 0.25


def export_run(run: Run, folder: pathlib.Path, record: Mapping[str, Any] | None = None) -> pathlib.Path:
    """Exports the best weights of a finished run as a new version of a model.

    Under another Keras backend than TensorFlow, a process of its own does it: the weights fit either.

    Args:
        run: one that has finished.
        folder: `saved_models/<name>`.
        record: what else was measured of the run, for the model's contract; plain values for JSON.

    Returns:
        Folder of the new version.

    Raises:
        UserError: the run has not finished, or is damaged.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        command = [sys.executable, "-m", "sepnet.export_run", str(run), "--to", str(folder), "--record-from-stdin"]
        answer = subprocess.run(
            command,
            env={**os.environ, "KERAS_BACKEND": "tensorflow"},
            input=json.dumps(record),
            capture_output=True,
            text=True,
            check=False,
        )
        if answer.returncode:
            # A process that was killed says nothing.
            told = answer.stderr.strip().splitlines() or [f"its process ended with status {answer.returncode}"]
            raise UserError(f"the export through TensorFlow failed: {told[-1]}")
        return newest_version(folder)

    config, summary = run.config, run.summary
    with precision("float32"):
        network = config.build(summary["sample_rate"])
    run.load_weights(network.model)
    details = summary if record is None else {**summary, "record": record}
    contract = make_contract(
        name=folder.name,
        grid_samples=network.grid_samples,
        context_samples=network.reach_samples,
        parts=config.data.parts,
        config=json.loads(config.to_json()),
        **details,
    )
    return export_model(network.model, folder, contract)


def export_model(model, folder: pathlib.Path, contract: Mapping[str, Any]) -> pathlib.Path:
    """Writes a new version of a model, whole or not at all.

    Args:
        model: Functional Keras model from `mixture` `[batch, num_samples, num_channels]` to a dict of stems.
        folder: see `export_function`.
        contract: likewise.

    Returns:
        Folder of the new version.

    Raises:
        UserError: the weights hold NaN or infinity, or the folder cannot be written.
    """
    import numpy as np

    for weight in model.weights:
        if not np.isfinite(np.asarray(weight)).all():
            raise UserError(f"the weights {weight.path} hold NaN or infinity, so nothing is exported; train anew")
    kept = [variable.value for variable in model.variables]
    return export_function(functools.partial(model, training=False), folder, contract, keep=kept)


def export_function(run: Callable, folder: pathlib.Path, contract: Mapping[str, Any], *, keep: Any) -> pathlib.Path:
    """Writes a function of TensorFlow as a new version of a model, whole or not at all.

    Args:
        run: from a mixture, `[batch, num_samples, num_channels]`, to a dict of stems.
        folder: `saved_models/<name>`; versions are numbered from 1.
        contract: of `sepnet.export.contract.make_contract`; its sources are the keys of the dict.
        keep: variables, or loaded SavedModels, that the function reads.

    Returns:
        Folder of the new version, which has the signatures of `sepnet.export.signatures`, and requests beside its
        contract with which TensorFlow Serving warms itself up.

    Raises:
        UserError: the folder cannot be written.
    """
    import tensorflow as tf

    functions = serving_functions(run, contract)
    # Of exports at once, each has a number of its own.
    with folder_lock(folder):
        version = folder / str(max(versions(folder), default=0) + 1)
        with whole_folder(version) as folder_of_version, plain_path(folder_of_version) as temporary:
            # Not Keras' archive, which traces every layer on its own to look for tables of words: half of an export's
            # time.
            module = tf.Module()
            module.kept = keep
            tf.saved_model.save(module, str(temporary), signatures=functions)
            path = temporary / CONTRACT_FILE
            path.parent.mkdir()
            path.write_text(json.dumps(contract, indent=2))
            write_warmup(temporary / WARMUP_FILE, one_line(folder.name), _warmup_requests(contract))
            write_checksums(temporary)
    return version


@contextlib.contextmanager
def plain_path(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a path to a folder that TensorFlow takes literally: it reads `[a]*?` as patterns, and names as UTF-8."""
    if re.fullmatch(r"[^\[\]*?{}\\\udc80-\udcff]*", folder.absolute().as_posix()):
        yield folder
        return
    with tempfile.TemporaryDirectory() as place:
        link = pathlib.Path(place, "model")
        link.symlink_to(folder.resolve(), target_is_directory=True)
        yield link


def _warmup_requests(contract: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """One short request for each signature that separates."""
    import numpy as np
    import tensorflow as tf

    sample_rate = contract["sample_rate"]
    shape = round(WARMUP_SECONDS * sample_rate), contract["num_channels"]
    mixture = np.random.default_rng(0).uniform(-0.5, 0.5, shape).astype(np.float32)
    return {
        SERVING_DEFAULT: {"mixture": mixture[None]},
        WAV: {f"wav{BYTES_SUFFIX}": [tf.audio.encode_wav(mixture, sample_rate).numpy()]},
        TENSOR: {f"mixture{BYTES_SUFFIX}": [tf.io.serialize_tensor(mixture).numpy()]},
    }


def versions(folder: pathlib.Path) -> list[int]:
    """The versions of a model that are there, in ascending order."""
    if not folder.is_dir():
        return []
    # Of digits alone, as they are written here: no "007", and none of the other digits that Unicode has.
    names = (path.name for path in folder.iterdir())
    return sorted(int(name) for name in names if name.isascii() and name.isdigit() and name == str(int(name)))


def newest_version(path: pathlib.Path) -> pathlib.Path:
    """The folder of a version: `path` itself if it is one, else the highest version under it.

    Raises:
        UserError: there is no SavedModel.
    """
    if (path / "saved_model.pb").is_file():
        return path
    numbers = versions(path)
    if not numbers:
        raise UserError(f"no SavedModel in {path}; give a folder under saved_models/, or make one with sepnet.train")
    return path / str(numbers[-1])


def newest_model(saved_models: pathlib.Path) -> pathlib.Path:
    """The version under `saved_models` that was exported last.

    Raises:
        UserError: no model lies under it.
    """
    models = saved_models.iterdir() if saved_models.is_dir() else ()
    every = (model / str(number) / CONTRACT_FILE for model in models for number in versions(model))
    contracts = [path for path in every if path.is_file()]
    if not contracts:
        raise UserError(
            f"no model under {saved_models}; make one with `python -m sepnet.train`, or name one by --model"
        )
    return max(contracts, key=lambda path: path.stat().st_mtime_ns).parent.parent
