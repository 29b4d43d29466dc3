"""A SavedModel, loaded: its contract, and stems for a batch of waveforms."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.errors import UserError, one_line
from sepnet.config.config import Config
from sepnet.export.checksums import check_checksums, damaged
from sepnet.export.contract import CONTRACT_FILE, read_contract
from sepnet.export.signatures import SERVING_DEFAULT
from sepnet.export.write import newest_version, plain_path

# What TensorFlow's loader, which looks for no mistakes, raises at a graph or at weights that are damaged.
LOADING_ERRORS = (AssertionError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)
LONGEST_REASON = 200


class SavedModel:
    """A model that `sepnet.export.write` wrote, ready to run.

    Attributes:
        path: folder of the version.
        contract: what its `assets.extra/sepnet.json` says; `sepnet.Separator` reads `sources`, `sample_rate`,
            `num_channels`, `grid_samples` and `context_samples`.
        loaded: TensorFlow's object, which must outlive its signatures.
        signatures: TensorFlow's functions by name, see `sepnet.export.signatures`; an older model has fewer.

    Args:
        path: folder of a model, or of one version of it.

    Raises:
        UserError: there is no SavedModel, it is not one of this project's, or it is damaged.
    """

    def __init__(self, path: pathlib.Path | str):
        import tensorflow as tf

        self.path = newest_version(pathlib.Path(path))
        self.contract: dict[str, Any] = read_contract(self.path)
        check_checksums(self.path)
        try:
            with plain_path(self.path) as path:
                self.loaded = tf.saved_model.load(str(path))
            self.signatures = self.loaded.signatures
            self._signature = self.signatures[SERVING_DEFAULT]
            taken = self._signature.structured_input_signature[1]["mixture"].shape[-1]
            given = set(self._signature.structured_outputs)
        except (*LOADING_ERRORS, tf.errors.OpError) as error:
            raise damaged(self.path, one_line(error)[:LONGEST_REASON]) from error
        if taken != self.contract["num_channels"] or not given.issuperset(self.contract["sources"]):
            raise UserError(
                f"{self.path / CONTRACT_FILE} is damaged: the model takes {taken} channels and gives "
                f"{', '.join(sorted(given))}; export the model again"
            )

    @property
    def name(self) -> str:
        """The model's name, that of the folder of its versions."""
        return self.path.resolve().parent.name

    def __call__(self, mixture: np.ndarray) -> dict[str, np.ndarray]:
        """Separates a batch.

        Args:
            mixture: float32 `[batch, num_samples, num_channels]`, full scale ±1, at the model's rate.

        Returns:
            For each source an array of the same shape, read-only.

        Raises:
            MemoryError: there is not enough memory for the batch.
        """
        import tensorflow as tf

        try:
            outputs = self._signature(mixture=tf.constant(mixture, tf.float32))
            # `numpy()` would copy; these arrays are read-only.
            return {source: np.asarray(outputs[source]) for source in self.contract["sources"]}
        except tf.errors.ResourceExhaustedError as error:
            raise MemoryError(f"TensorFlow has no room for a batch of {list(mixture.shape)}") from error


def read_models(
    paths: Sequence[pathlib.Path],
) -> tuple[dict[str, pathlib.Path], dict[str, tuple[str, ...]], list[str], int]:
    """Finds models that are to be compared, or versions of models, without loading them.

    Returns:
        The folders of their versions, by names that differ; the stems whose sum each source is, which are the same for
        all; the stems of songs that no source holds; and the most channels that one takes.

    Raises:
        UserError: there is no SavedModel, it is not one of this project's, or the models have different sources.
    """
    models = {name: newest_version(path) for name, path in zip(short_names(paths), paths, strict=True)}
    contracts = [read_contract(version) for version in models.values()]
    parts = [parts_of(contract, version) for contract, version in zip(contracts, models.values(), strict=True)]
    if any(other != parts[0] for other in parts):
        listed = " and ".join(", ".join(names) for names in parts)
        raise UserError(f"the models have different sources ({listed}); compare those that have the same")
    others = dict.fromkeys(stem for contract in contracts for stem in contract.get("others", ()))
    return models, parts[0], list(others), max(contract["num_channels"] for contract in contracts)


def short_names(folders: Sequence[pathlib.Path]) -> list[str]:
    """The names of folders, or their paths where two have one name.

    Raises:
        UserError: a folder is there twice.
    """
    places = [folder.resolve() for folder in folders]
    if twice := [folder for index, folder in enumerate(folders) if places[index] in places[:index]]:
        raise UserError(f"{twice[0]} is given twice; leave one of them out")
    names = [place.name for place in places]
    return names if len(set(names)) == len(names) else list(map(str, folders))


def parts_of(contract: Mapping[str, Any], version: pathlib.Path) -> dict[str, tuple[str, ...]]:
    """The stems whose sum each source of a model is, by its contract.

    Raises:
        UserError: the contract, of this version, does not say.
    """
    if "parts" in contract:
        return {source: tuple(stems) for source, stems in contract["parts"].items()}
    # Models of earlier versions say it in their runs' config alone.
    if "config" not in contract:
        raise UserError(f"{version} does not say of which stems its sources are sums; export its run again")
    return Config.from_values(contract["config"]).data.parts
