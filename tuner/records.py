"""What a search leaves in its folder, read back: trials with their status, and what each of their runs measured.

searches/<name>/search.json                   what is searched, and how
searches/<name>/oracle.json, trial_*/trial.json    KerasTuner's own
searches/<name>/trial_*/outcome.json          status and reason of a trial that has no result, and its plan if known
searches/<name>/trial_*/seed_*/               a run of `sepnet.fit`, and its record.json
"""

import dataclasses
import json
import pathlib
from typing import Any

from pipelines.errors import UserError
from pipelines.files import whole_file
from sepnet.export import RECORD

SETTINGS = "search.json"
OUTCOME = "outcome.json"
LOG = "log.txt"
COMPLETED, FAILED, NOT_FITTING, RUNNING = "completed", "failed", "not fitting", "running"
# Values that name a trial; all others are knobs.
REPRESENTATION, DEPTH = "representation", "depth"
# KerasTuner's hyperband notes among the values where it is; only the epochs of a trial make another model.
NOTED = "tuner/"
UNSHOWN = tuple(f"{NOTED}{name}" for name in ("trial_id", "initial_epoch", "bracket", "round"))
# The trial of an earlier round whose runs go on in this one.
CONTINUED = f"{NOTED}trial_id"


@dataclasses.dataclass(frozen=True)
class Run:
    """One training of a trial's configuration.

    Attributes:
        seed: of its weights, segments and augmentation.
        folder: what `sepnet.fit` left.
        record: what it measured; see `tuner.trial`.
    """

    seed: int
    folder: pathlib.Path
    record: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Trial:
    """A configuration that was searched.

    Attributes:
        trial_id: KerasTuner's.
        values: hyperparameters: "representation" ("waveform", "stft", "mel"), "depth", and fields of the config.
        status: "completed", "failed", "not fitting" (not started, since its plan exceeds the memory) or "running" (or
            waiting to go on).
        reason: one line, of a trial that failed or does not fit.
        runs: by seed, those that are done; of a completed trial all.
        planned_bytes: memory that training takes by its plan; None if that is not known.
    """

    trial_id: str
    values: dict[str, Any]
    status: str
    reason: str
    runs: tuple[Run, ...]
    planned_bytes: int | None = None

    @property
    def representation(self) -> str:
        return self.values[REPRESENTATION]

    @property
    def depth(self) -> int:
        return self.values[DEPTH]

    @property
    def knobs(self) -> dict[str, Any]:
        """Values that the trial has beside representation and depth; of what hyperband notes, the epochs alone."""
        values = {name.removeprefix(NOTED): value for name, value in self.values.items() if name not in UNSHOWN}
        return {name: value for name, value in values.items() if name not in (REPRESENTATION, DEPTH)}

    @property
    def label(self) -> str:
        """For tables and pictures: "stft 5", with the knobs behind it."""
        return " ".join(
            [self.representation, str(self.depth), *(f"{name}={value}" for name, value in self.knobs.items())]
        )


@dataclasses.dataclass(frozen=True)
class Search:
    """A search as far as it is done.

    Attributes:
        folder: `searches/<name>`.
        settings: the content of `search.json`.
        trials: in the order in which they were begun.
    """

    folder: pathlib.Path
    settings: dict[str, Any]
    trials: tuple[Trial, ...]

    @property
    def completed(self) -> tuple[Trial, ...]:
        return tuple(trial for trial in self.trials if trial.status == COMPLETED)


def read_search(folder: pathlib.Path) -> Search:
    """Reads a search, also while it runs.

    Raises:
        UserError: the folder is no search.
    """
    try:
        settings = json.loads((folder / SETTINGS).read_text())
    except OSError as error:
        raise UserError(
            f"{folder} holds no {SETTINGS} ({error.strerror}); give the folder of a search, such as searches/NAME"
        ) from error
    except ValueError as error:
        raise UserError(f"{folder / SETTINGS} is damaged ({error}); search anew under another --name") from error
    return Search(folder, settings, tuple(_read_trial(path) for path in sorted(folder.glob("trial_*/trial.json"))))


def read_runs(trial_folder: pathlib.Path) -> tuple[Run, ...]:
    """The runs of a trial that are done, by seed."""
    records = trial_folder.glob(f"seed_*/{RECORD}")
    runs = (
        Run(int(path.parent.name.removeprefix("seed_")), path.parent, json.loads(path.read_text())) for path in records
    )
    return tuple(sorted(runs, key=lambda run: run.seed))


def _read_trial(path: pathlib.Path) -> Trial:
    state = json.loads(path.read_text())
    outcome = {"status": COMPLETED if state["status"] == "COMPLETED" else RUNNING, "reason": ""}
    if state["status"] == "FAILED":
        try:
            outcome = json.loads((path.parent / OUTCOME).read_text())
        except FileNotFoundError:
            # An error that this project does not know, of which KerasTuner keeps the traceback.
            outcome = {"status": FAILED, "reason": (state.get("message") or "").strip().rpartition("\n")[2]}
    values = state["hyperparameters"]["values"]
    runs = read_runs(path.parent)
    planned_bytes = max((run.record["costs"]["planned_training_bytes"] for run in runs), default=None)
    return Trial(
        state["trial_id"],
        values,
        outcome["status"],
        outcome["reason"],
        runs,
        outcome.get("planned_bytes", planned_bytes),
    )


def write_json(path: pathlib.Path, values: Any) -> None:
    """Writes a file of the search, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2))
