"""The folder of a search, read: trials with their status, and the records of their runs.

A file that does not hold what a search writes is refused here, so that the other modules need not check.

searches/<name>/search.json                   what is searched, and how
searches/<name>/oracle.json, trial_*/trial.json    KerasTuner's own
searches/<name>/trial_*/outcome.json          status and reason of a trial that has no result, and its plan if known
searches/<name>/trial_*/seed_*/               a run of `sepnet.training.fit`, and its record.json
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any

from pipelines.errors import UserError, one_line
from pipelines.files import whole_file

SETTINGS, ORACLE, TRIAL, OUTCOME = "search.json", "oracle.json", "trial.json", "outcome.json"
RECORD, LOG = "record.json", "log.txt"
COMPLETED, FAILED, NOT_FITTING, RUNNING = "completed", "failed", "not fitting", "running"
# Values that name a trial; all others are knobs.
REPRESENTATION, DEPTH = "representation", "depth"
# Prefix of the values by which KerasTuner's hyperband keeps its state; of these, only the epochs make another model.
HYPERBAND = "tuner/"
UNSHOWN = tuple(f"{HYPERBAND}{name}" for name in ("trial_id", "initial_epoch", "bracket", "round"))
# The trial of an earlier round whose runs go on in this one.
CONTINUED = f"{HYPERBAND}trial_id"


@dataclasses.dataclass(frozen=True)
class Run:
    """One training of a trial's configuration.

    Attributes:
        seed: of its weights, segments and augmentation.
        folder: `searches/<name>/trial_<id>/seed_<seed>`, see `sepnet.config.run_folder`.
        record: measurements; see `tuner.trial`.
    """

    seed: int
    folder: pathlib.Path
    record: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Trial:
    """A configuration that was searched.

    Attributes:
        trial_id: KerasTuner's.
        values: hyperparameters: "representation" ("waveform", "stft", "mel", "complex" or "hybrid"), "depth", and
            fields of the config.
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
        """Values that the trial has beside representation and depth; of those of hyperband, the epochs alone."""
        values = {name.removeprefix(HYPERBAND): value for name, value in self.values.items() if name not in UNSHOWN}
        return {name: value for name, value in values.items() if name not in (REPRESENTATION, DEPTH)}

    @property
    def label(self) -> str:
        """For tables and pictures, one line: "stft 5", with the knobs behind it."""
        return self._named(self.representation, str(self.depth))

    @property
    def kind(self) -> str:
        """The label of all trials that differ in nothing but their depth."""
        return self._named(self.representation)

    def _named(self, *words: str) -> str:
        return one_line(" ".join([*words, *(f"{name}={value}" for name, value in self.knobs.items())]))


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
        UserError: the folder is no search, or a file of it is damaged.
    """
    settings = read_settings(folder)
    if settings is None:
        raise UserError(f"{folder} holds no {SETTINGS}; give the folder of a search, such as searches/NAME")
    trials = (_read_trial(path) for path in folder.glob(f"trial_*/{TRIAL}"))
    return Search(folder, settings, tuple(sorted(trials, key=lambda trial: int(trial.trial_id))))


def read_settings(folder: pathlib.Path) -> dict[str, Any] | None:
    """The content of `search.json`, or None where there is none.

    Raises:
        UserError: the file is damaged, or there can be no folder of this name.
    """
    try:
        is_there = (folder / SETTINGS).exists()
    except OSError as error:
        raise UserError(f"{folder} can be no folder of a search: {error.strerror}; take another --name") from error
    return _read(folder / SETTINGS, _SETTINGS) if is_there else None


def read_runs(trial_folder: pathlib.Path) -> tuple[Run, ...]:
    """The runs of a trial that are done, by seed.

    Raises:
        UserError: the record of one is damaged.
    """
    runs = (_read_run(path) for path in trial_folder.glob(f"seed_*/{RECORD}") if _seed_of(path).isdecimal())
    return tuple(sorted(runs, key=lambda run: run.seed))


def no_number(runs: Sequence[Run]) -> str:
    """Says which of the runs has errors that are no numbers; empty where none has."""
    for run in runs:
        errors = [run.record["metrics"]["val_mse"], *(error for row in run.record["segment_mse"] for error in row)]
        wrong = next((error for error in errors if not math.isfinite(error)), None)
        if wrong is not None:
            return f"seed {run.seed}: its val_mse is {wrong}; take a lower learning rate"
    return ""


def read_trial_state(folder: pathlib.Path, trial_id: str) -> dict[str, Any]:
    """Reads KerasTuner's file of a trial: `status`, `message`, `score`, and `hyperparameters`, which has `values`.

    Raises:
        UserError: the file is gone or damaged.
    """
    path = folder / f"trial_{trial_id}" / TRIAL
    state = _read(path, _TRIAL)
    if state["trial_id"] != trial_id:
        raise _damaged(path, f"it is of trial {state['trial_id']}")
    return state


def read_oracle_state(folder: pathlib.Path, has_brackets: bool) -> dict[str, Any]:
    """Reads the file of KerasTuner's oracle: which trials there are, and what was drawn.

    Args:
        folder: of the search.
        has_brackets: it is Hyperband's, which has also `brackets`, `current_bracket` and `current_iteration`.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / ORACLE
    state = _read(path, {**_ORACLE, **(_BRACKETS if has_brackets else {})})
    trials = state["start_order"]
    named = {*state["ongoing_trials"].values(), *state["retry_queue"], *state["end_order"], *state["run_times"]}
    rounds = [one for bracket in (state["brackets"] if has_brackets else ()) for one in bracket["rounds"]]
    named |= {info[name] for one in rounds for info in one for name in ("id", "past_id")}
    # The number of the next trial is how many there are.
    if list(map(int, trials)) != list(range(len(trials))) or not named - {None} <= set(trials):
        raise _damaged(path, "its trials are not those that it has begun")
    return state


def _read_trial(path: pathlib.Path) -> Trial:
    state = read_trial_state(path.parents[1], path.parent.name.removeprefix("trial_"))
    runs = read_runs(path.parent)
    wrong = no_number(runs)
    status = FAILED if wrong and state["status"] == "COMPLETED" else _STATUSES[state["status"]]
    outcome = {"status": status, "reason": wrong if status == FAILED else ""}
    if state["status"] == "FAILED" and (path.parent / OUTCOME).exists():
        outcome = _read(path.parent / OUTCOME, _OUTCOME)
    elif status == FAILED and not wrong:
        # An error that this project does not know, of which KerasTuner keeps the traceback.
        outcome["reason"] = (state.get("message") or "").strip().rpartition("\n")[2]
    planned_bytes = max((run.record["costs"]["planned_training_bytes"] for run in runs), default=None)
    return Trial(
        state["trial_id"],
        state["hyperparameters"]["values"],
        outcome["status"],
        one_line(outcome["reason"]) or (f"no reason was kept; see {LOG} of its runs" if status == FAILED else ""),
        runs,
        outcome.get("planned_bytes", planned_bytes),
    )


def _read_run(path: pathlib.Path) -> Run:
    record = _read(path, _RECORD)
    names = {f"val_mse_{source}" for source in record["sources"]}
    rows = record["segment_mse"]
    if not rows or {len(row) for row in rows} != {max(len(names), 1)} or not names <= set(record["metrics"]):
        raise _damaged(path, "its sources, metrics and segment_mse do not go together")
    return Run(int(_seed_of(path)), path.parent, record)


def _read(path: pathlib.Path, shape: Any) -> Any:
    """The content of a JSON file of a shape, as those at the end of this file."""
    try:
        value = json.loads(path.read_bytes())
        if _num_levels(value) > _MOST_LEVELS:
            raise ValueError(f"it is nested deeper than {_MOST_LEVELS} levels")
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}; put it back, or search anew under another --name"
        ) from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, error) from error
    if place := _misfit(value, shape, ""):
        raise _damaged(path, f"at {place}")
    return value


def _damaged(path: pathlib.Path, why: object) -> UserError:
    return UserError(f"{path} is damaged ({one_line(why)}); search anew under another --name")


def _num_levels(value: Any) -> int:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_num_levels, parts), default=0)


def _misfit(value: Any, shape: Any, place: str) -> str:
    """The place of the first value that is not of its shape; empty where all are."""
    if callable(shape):
        return "" if shape(value) else place
    if not isinstance(value, type(shape)):
        return place or "its beginning"
    if isinstance(shape, list):
        parts = [(part, shape[0], f"{place}[{number}]") for number, part in enumerate(value)]
    else:
        # The keys that are named have shapes of their own.
        others = [(name, shape[str]) for name in value if name not in shape] if str in shape else []
        named = [(name, of_name) for name, of_name in shape.items() if name is not str]
        parts = [(value.get(name), of_name, f"{place}.{name}".strip(".")) for name, of_name in named + others]
    return next((found for part in parts if (found := _misfit(*part))), "")


def _seed_of(path: pathlib.Path) -> str:
    return path.parent.name.removeprefix("seed_")


def write_json(path: pathlib.Path, values: Any) -> None:
    """Writes a file of the search, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2))


# Deeper than any file of a search, and as deep as all that shows one can go.
_MOST_LEVELS = 50
# Squares of larger ones are no numbers, and NumPy counts in 64 bits.
_LARGEST, _LARGEST_INTEGER = 1e100, 2**63 - 1


def _is_number(value: Any) -> bool:
    if isinstance(value, float):
        return abs(value) < _LARGEST
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST_INTEGER


def _is_figure(value: Any) -> bool:
    """Errors and costs, which are never below zero."""
    return _is_number(value) and value >= 0


def _is_error(value: Any) -> bool:
    """Also one that came out as no number, of which the trial failed."""
    return _is_figure(value) or (isinstance(value, float) and not math.isfinite(value))


def _is_metric(value: Any) -> bool:
    return isinstance(value, float) or _is_number(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and _is_figure(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_id(value: Any) -> bool:
    return _is_text(value) and value.isascii() and value.isdigit() and len(value) < 10


def _is_setting(value: Any) -> bool:
    is_float = isinstance(value, float) and math.isfinite(value)
    return value is None or isinstance(value, bool) or _is_text(value) or is_float or _is_number(value)


def _or_none(holds):
    return lambda value: value is None or holds(value)


# What each file holds: the shape of every value that is read, where None stands for one that is not there. A key `str`
# is for all keys.
_STATUSES = {"RUNNING": RUNNING, "COMPLETED": COMPLETED, "FAILED": FAILED}
_SETTINGS = {"knobs": lambda value: value is None or (isinstance(value, list) and all(map(_is_text, value)))}
_TRIAL = {
    "trial_id": _is_id,
    "status": lambda value: _is_text(value) and value in _STATUSES,
    "message": _or_none(_is_text),
    "score": _or_none(_is_metric),
    "hyperparameters": {
        "values": {
            REPRESENTATION: lambda value: _is_text(value) and value.isascii() and value.isidentifier(),
            DEPTH: lambda value: _is_count(value) and 1 <= value < 1000,
            str: _is_setting,
        }
    },
}
_OUTCOME = {
    "status": lambda value: value in (FAILED, NOT_FITTING),
    "reason": _is_text,
    "planned_bytes": _or_none(_is_figure),
}
_RECORD = {
    "metrics": {"val_mse": _is_error, "val_si_sdr": _is_metric, str: _is_metric},
    "segment_mse": [[_is_error]],
    "sources": [_is_text],
    "baselines": {"silence": {"val_mse": _is_figure}, str: {"val_mse": _is_figure}},
    "costs": {
        **dict.fromkeys(("parameters", "training_seconds", "planned_training_bytes"), _is_figure),
        str: _or_none(_is_figure),
    },
    "meter": {"cpu": _or_none(_is_text), "gpu": _or_none(_is_text)},
}
_ORACLE = {
    "ongoing_trials": {str: _is_id},
    "start_order": [_is_id],
    "end_order": [_is_id],
    "run_times": {str: _is_count},
    "retry_queue": [_is_id],
    "seed": _is_count,
    "seed_state": _is_count,
    "tried_so_far": [_is_text],
    "id_to_hash": {str: _or_none(_is_text)},
}
_BRACKETS = {
    "brackets": [{"bracket_num": _is_count, "rounds": [[{"past_id": _or_none(_is_id), "id": _is_id}]]}],
    "current_bracket": _is_count,
    "current_iteration": _is_count,
}
