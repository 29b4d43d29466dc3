"""The folder of a run, `runs/<name>`: where everything lies in it, written and read."""

import csv
import dataclasses
import json
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipelines.errors import UserError, one_line
from pipelines.files import whole_file
from sepnet.config.config import Config


@dataclasses.dataclass(frozen=True)
class Run:
    """A run by its folder; nothing is read or written before it is asked for.

    Attributes:
        folder: `runs/<name>`, or `searches/<name>/trial_<id>/seed_<seed>`.
    """

    folder: pathlib.Path

    def __str__(self) -> str:
        return str(self.folder)

    @property
    def config_file(self) -> pathlib.Path:
        """The whole config, JSON."""
        return self.folder / "config.json"

    @property
    def summary_file(self) -> pathlib.Path:
        """Figures, costs and provenance of a run that has finished, JSON."""
        return self.folder / "summary.json"

    @property
    def history_file(self) -> pathlib.Path:
        """Figures by epoch, CSV."""
        return self.folder / "history.csv"

    @property
    def spent_file(self) -> pathlib.Path:
        """Seconds and joules spent until the end of each epoch, CSV."""
        return self.folder / "spent.csv"

    @property
    def loss_picture(self) -> pathlib.Path:
        """Training loss and `val_mse` by epoch, PNG."""
        return self.folder / "loss.png"

    @property
    def best_weights(self) -> pathlib.Path:
        """Weights of the separator at its lowest `val_mse`, for Keras' `load_weights`."""
        return self.folder / "checkpoints" / "best.weights.h5"

    @property
    def last_state(self) -> pathlib.Path:
        """The state from which training goes on; see `sepnet.training.checkpoints`."""
        return self.folder / "checkpoints" / "last.npz"

    @property
    def logs(self) -> pathlib.Path:
        """Folder of TensorBoard's logs."""
        return self.folder / "logs"

    @property
    def config(self) -> Config:
        """The config that the run was begun with.

        Raises:
            UserError: the folder is no run, or its config cannot be read.
        """
        try:
            return Config.from_json(self.config_file.read_bytes())
        except OSError as error:
            raise UserError(f"{self} holds no config.json ({error.strerror}); give the folder of a run") from error
        except UserError as error:
            raise UserError(f"{self.config_file} cannot be read: {error}") from error

    @property
    def summary(self) -> dict[str, Any]:
        """The content of `summary_file`, as `sepnet.training.fit` writes it.

        Raises:
            UserError: the run has not finished, or its summary is damaged.
        """
        try:
            summary = json.loads(self.summary_file.read_text())
            for figures in (summary["metrics"], *summary["baselines"].values()):
                float(figures["val_mse"] + figures["val_si_sdr"])
            float(summary["costs"]["parameters"] + summary["costs"]["training_seconds"])
            float(summary["depth"] + summary["sample_rate"])
            if not (summary["baselines"] and isinstance(summary["family"], str)):
                raise ValueError("it has no baselines, or no family")
            return summary
        except OSError as error:
            raise UserError(
                f"{self} holds no summary.json ({error.strerror}); give the folder of a finished run"
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(
                f"{self.summary_file} is damaged ({one_line(error)}); finish the run with --resume {self}"
            ) from error

    @property
    def history(self) -> dict[str, list[float]]:
        """Figures by their name, each by epoch; `val_mse` is finite, and there is one epoch at least.

        Raises:
            UserError: the file is gone or damaged.
        """
        try:
            with self.history_file.open(newline="") as file:
                rows = list(csv.DictReader(file))
            history = {name: [float(row[name]) for row in rows] for name in (rows[0] if rows else ())}
            if not all(map(math.isfinite, history["val_mse"])):
                raise ValueError("a val_mse is no number")
        except OSError as error:
            raise UserError(f"cannot read {self.history_file}: {error.strerror}; put it back") from error
        except (ValueError, KeyError, TypeError, csv.Error) as error:
            raise UserError(f"{self.history_file} is damaged ({one_line(error)}); train the run anew") from error
        return {name: values for name, values in history.items() if name != "epoch"}

    @property
    def spent(self) -> list[tuple[float, float]]:
        """Seconds and joules that had been spent at the end of each epoch.

        Raises:
            UserError: the file is gone or damaged, or of a version that did not write it.
        """
        try:
            with self.spent_file.open(newline="") as file:
                return [(float(row["seconds"]), float(row["joules"])) for row in csv.DictReader(file)]
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
            raise UserError(f"cannot read {self.spent_file} ({one_line(error)}); train the run anew") from error

    def load_weights(self, model) -> None:
        """Loads `best_weights` into a Keras model of the run's network.

        Raises:
            UserError: they are gone or damaged, or of another network.
        """
        try:
            model.load_weights(self.best_weights)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"{self.best_weights} is gone, damaged or of another version of sepnet ({one_line(error)[:120]}); put "
                "it back, or train the run anew"
            ) from error

    def write_config(self, config: Config) -> None:
        """Begins a run: writes `config_file`, whole or not at all, and makes the folders."""
        self.best_weights.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(self.config_file) as temporary:
            temporary.write_text(config.to_json())

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Ends a run: writes `summary_file`, whole or not at all."""
        with whole_file(self.summary_file) as temporary:
            temporary.write_text(json.dumps(summary, indent=2))

    def write_history(self, history: Mapping[str, Sequence[float]], spent: Sequence[tuple[float, float]]) -> None:
        """Writes `history_file` and `spent_file`, each whole or not at all."""
        _write_epochs(self.history_file, list(history), zip(*history.values(), strict=True))
        _write_epochs(self.spent_file, ["seconds", "joules"], spent)


def _write_epochs(path: pathlib.Path, names: Sequence[str], rows: Iterable[Sequence[float]]) -> None:
    with whole_file(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", *names])
        writer.writerows((epoch, *row) for epoch, row in enumerate(rows, 1))
