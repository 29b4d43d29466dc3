"""KerasTuner's oracles, mended: they survive being killed at any moment, and workers that die.

What is wrong with them (KerasTuner 1.4.8): `GridSearch` forgets its order in a restart and stops early; state is
written in place, so that a kill can leave half a file; a trial whose file is there but not its entry in the oracle's is
never run; the lock stays closed after an exception; a search ends for workers that ask while another one's trial may
still be given back; a space of few models is taken for exhausted while some are left, or (`BayesianOptimization`) one
of them is tried again and again; a representation is drawn with depths of another; `Hyperband` has no later rounds
where a trial of an earlier one failed, or where there are fewer models than that should have; what was written is
believed, whatever it is, and so is the space that it was drawn from, which may have grown; trials under a name with
brackets are not found, and one that is no UTF-8 is none.
"""

import math
import pathlib
import shutil
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import keras_tuner
from keras_tuner.src.engine import oracle as kt_oracle
from keras_tuner.src.engine.hyperparameters.hp_types.choice_hp import Choice
from keras_tuner.src.engine.hyperparameters.hp_types.numerical import Numerical
from keras_tuner.src.engine.trial import Trial, TrialStatus

from pipelines.errors import UserError
from tuner.searching.records import (
    CONTINUED,
    DEPTH,
    HYPERBAND,
    ORACLE,
    REPRESENTATION,
    TRIAL,
    read_oracle_state,
    read_trial_state,
    write_json,
)

OBJECTIVE = keras_tuner.Objective("val_mse", "min")
HYPERBAND_FACTOR = 3
# Draws of what was drawn before, after which there is nothing new.
MOST_COLLISIONS = 1000
# What an oracle takes over from an earlier start; all else it knows by itself.
RECORDED = ("start_order", "end_order", "run_times", "seed", "seed_state", "tried_so_far", "id_to_hash")
RECORDED_BRACKETS = ("brackets", "current_bracket", "current_iteration")


class SearchStopped(UserError, keras_tuner.errors.FatalError):
    """Something that every trial would fail of: the search stops, and goes on when it is mended."""


class RecoveringOracle:
    """Base before an oracle of KerasTuner: workers may die, and exceptions leave no lock closed.

    Args:
        *arguments: of the oracle.
        depths: by representation.
        **options: of the oracle.
    """

    def __init__(self, *arguments, depths: Mapping[str, Sequence[int]], **options):
        super().__init__(*arguments, **options)
        self._max_collisions = MOST_COLLISIONS
        self._depths = depths

    def create_trial(self, tuner_id):
        with _ReleasedLock(self):
            trial = super().create_trial(tuner_id)
            if trial.status == TrialStatus.STOPPED and self.ongoing_trials:
                # Its worker may die, and somebody must be there to whom the trial can be given.
                trial.status = TrialStatus.IDLE
                self.tuner_ids.add(tuner_id)
            return trial

    def end_trial(self, trial):
        with _ReleasedLock(self):
            super().end_trial(trial)
            # KerasTuner has saved while the trial was still given out.
            self.save()

    def update_trial(self, trial_id, metrics, step=0):
        with _ReleasedLock(self):
            return super().update_trial(trial_id, metrics, step)

    @keras_tuner.synchronized
    def give_back(self, tuner_id: str) -> str | None:
        """Takes the trial of a worker that died, for whoever asks next.

        Returns:
            The trial's id; None if the worker had none.
        """
        self.tuner_ids.discard(tuner_id)
        trial = self.ongoing_trials.pop(tuner_id, None)
        if trial is None:
            return None
        self._retry_queue.append(trial.trial_id)
        self.save()
        return trial.trial_id

    @keras_tuner.synchronized
    def ask_again(self, trial_id: str) -> None:
        """Gives out a trial that is completed once more, behind those that wait: there is more to run of it."""
        trial = self.trials[trial_id]
        trial.status, trial.score = TrialStatus.RUNNING, None
        self.end_order = [ended for ended in self.end_order if ended != trial_id]
        self._retry_queue.insert(0, trial_id)

    @property
    def _project_dir(self):
        folder = pathlib.Path(self._directory, self._project_name)
        folder.mkdir(parents=True, exist_ok=True)
        return str(folder)

    def _get_trial_dir(self, trial_id):
        folder = pathlib.Path(self._project_dir, f"trial_{trial_id}")
        folder.mkdir(exist_ok=True)
        return str(folder)

    def _get_oracle_fname(self):
        return str(pathlib.Path(self._directory, self._project_name, ORACLE))

    def save(self):
        _write(pathlib.Path(self._get_oracle_fname()), self.get_state())

    def _save_trial(self, trial):
        _write(pathlib.Path(self._get_trial_dir(trial.trial_id)) / TRIAL, trial.get_state())

    def reload(self):
        """Goes on where an earlier start ended, in a space that may have grown.

        Raises:
            UserError: what that has left is damaged, or of another space.
        """
        folder = pathlib.Path(self._project_dir)
        is_hyperband = isinstance(self, keras_tuner.oracles.HyperbandOracle)
        state = read_oracle_state(folder, is_hyperband)
        begun = state["start_order"]
        self.trials = {trial_id: self._read_trial(folder, trial_id, begun) for trial_id in begun}
        unknown = [path for path in folder.glob("trial_*") if path.name.removeprefix("trial_") not in begun]
        for path in unknown:
            if any(path.glob("seed_*")):
                raise UserError(f"{folder / ORACLE} does not know {path.name}, which has runs; take another --name")
        for path in unknown:
            # Killed before the oracle knew of it, it was not begun: it is made anew, with the same values.
            shutil.rmtree(path)
        # Killed before the oracle knew of its end, a trial is given out again, and its runs are found to be done.
        waiting = {*state["ongoing_trials"].values(), *state["retry_queue"]}
        state["end_order"] = [trial_id for trial_id in state["end_order"] if trial_id not in waiting]
        for trial_id, trial in self.trials.items():
            if trial.status == TrialStatus.RUNNING or trial_id in waiting:
                trial.status = TrialStatus.RUNNING
                self._retry_queue.insert(0, trial_id)
        recorded = {name: state[name] for name in RECORDED + (RECORDED_BRACKETS if is_hyperband else ())}
        self.set_state({**self.get_state(), **recorded})

    def _read_trial(self, folder: pathlib.Path, trial_id: str, begun: Sequence[str]) -> Trial:
        state = read_trial_state(folder, trial_id)
        hyperparameters = self.hyperparameters.copy()
        hyperparameters.values = self._as_told(state["hyperparameters"]["values"])
        trial = Trial(hyperparameters, trial_id, state["status"], state.get("message"))
        trial.score = state.get("score")
        has_score = trial.score is not None and math.isfinite(trial.score)
        if not self._has(hyperparameters.values, begun) or (trial.status == TrialStatus.COMPLETED and not has_score):
            raise UserError(f"trial {trial_id} of {folder} is none of this search; search anew under another --name")
        return trial

    def _duplicate(self, values):
        # KerasTuner knows one list of depths for all representations, and asks this before it takes what it has drawn.
        return values[DEPTH] not in self._depths[values[REPRESENTATION]] or super()._duplicate(values)

    def _as_told(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values as this space has them: numbers are text where a choice has got "none" beside them."""
        texts = {
            hp.name for hp in self.hyperparameters.space if isinstance(hp, Choice) and isinstance(hp.values[0], str)
        }
        return {name: str(value) if name in texts else value for name, value in values.items()}

    def _has(self, values: Mapping[str, Any], begun: Sequence[str]) -> bool:
        """True if a trial may have these values."""
        space = {hp.name: hp for hp in self.hyperparameters.space}
        return values.keys() == space.keys() and all(_may_be(hp, values[name]) for name, hp in space.items())


class GridOracle(RecoveringOracle, keras_tuner.Oracle):
    """Tries a list of values, one after the other; a second start goes on with those that no trial has.

    Args:
        values: hyperparameters of each trial.
        **options: of `keras_tuner.Oracle`.
    """

    def __init__(self, values: Sequence[Mapping[str, Any]], **options):
        super().__init__(max_trials=len(values), **options)
        self.values = list(values)

    def populate_space(self, trial_id):
        tried = [trial.hyperparameters.values for trial in self.trials.values()]
        left = next((values for values in self.values if values not in tried), None)
        return {"status": TrialStatus.STOPPED} if left is None else {"status": TrialStatus.RUNNING, "values": left}


class RandomOracle(RecoveringOracle, keras_tuner.oracles.RandomSearchOracle):
    """KerasTuner's random search."""


class BayesianOracle(RecoveringOracle, keras_tuner.oracles.BayesianOptimizationOracle):
    """KerasTuner's Bayesian search; where it would try a model again, it draws another one."""

    def populate_space(self, trial_id):
        response = super().populate_space(trial_id)
        is_known = response["status"] == TrialStatus.RUNNING and self._duplicate(response["values"])
        return self._random_populate_space() if is_known else response


class HyperbandOracle(RecoveringOracle, keras_tuner.oracles.HyperbandOracle):
    """KerasTuner's Hyperband, which trains many configurations for a few epochs and the best of them for more.

    Rounds that are short of trials, since some failed or the space has no more, are completed in the end: of those that
    there are, the best part goes on.
    """

    _is_at_end = False

    def populate_space(self, trial_id):
        response = super().populate_space(trial_id)
        if response["status"] == TrialStatus.STOPPED:
            self._is_at_end = True
            try:
                response = super().populate_space(trial_id)
            finally:
                self._is_at_end = False
        return response

    def _has(self, values, begun):
        noted = {name: value for name, value in values.items() if name.startswith(HYPERBAND)}
        earlier = noted.pop(CONTINUED, None)
        return (
            super()._has({name: value for name, value in values.items() if not name.startswith(HYPERBAND)}, begun)
            and (earlier is None or earlier in begun)
            and noted.keys() == {f"{HYPERBAND}{name}" for name in ("epochs", "initial_epoch", "bracket", "round")}
            and all(isinstance(value, int) and 0 <= value <= self.max_epochs for value in noted.values())
        )

    def set_state(self, state):
        super().set_state(state)
        numbers = range(self._get_num_brackets())
        is_over = self._current_iteration >= self.hyperband_iterations
        if (
            is_over
            or self._current_bracket not in numbers
            or any(
                bracket["bracket_num"] not in numbers
                or len(bracket["rounds"]) != self._get_num_rounds(bracket["bracket_num"])
                for bracket in self._brackets
            )
        ):
            raise UserError(f"{self._get_oracle_fname()} is damaged (at brackets); search anew under another --name")

    def _remove_completed_brackets(self):
        # At the end, rounds are as large as those before them allow, which may not have begun.
        if not self._is_at_end:
            super()._remove_completed_brackets()

    def _get_size(self, bracket_num, round_num):
        size = super()._get_size(bracket_num, round_num)
        bracket = next((bracket for bracket in self._brackets if bracket["bracket_num"] == bracket_num), None)
        if not self._is_at_end or bracket is None:
            return size
        statuses = [[self.trials[info["id"]].status for info in trials] for trials in bracket["rounds"]]
        if round_num == 0:
            return statuses[0].count(TrialStatus.COMPLETED)
        share = math.ceil(statuses[round_num - 1].count(TrialStatus.COMPLETED) / self.factor)
        return min(size, share) - statuses[round_num].count(TrialStatus.FAILED)


def make_oracle(strategy: str, space, *, max_trials: int, max_epochs: int, seed: int):
    """The oracle of a strategy.

    Args:
        strategy: "grid", "random", "bayesian" or "hyperband".
        space: `tuner.searching.search_space.Space`.
        max_trials: of random and Bayesian searches.
        max_epochs: that Hyperband gives to its best.
        seed: of what is drawn.

    Raises:
        UserError: a package is missing, or the space is not for this strategy.
    """
    hp = keras_tuner.HyperParameters()
    space.declare(hp)
    options = {
        "objective": OBJECTIVE,
        "hyperparameters": hp,
        "depths": space.depths,
        "tune_new_entries": True,
        "allow_new_entries": True,
        "seed": seed,
        # One that failed says nothing about the others.
        "max_consecutive_failed_trials": sys.maxsize,
    }
    if strategy == "grid":
        return GridOracle(space.grid(), **options)
    if strategy == "random":
        return RandomOracle(max_trials=max_trials, **options)
    if strategy == "bayesian":
        try:
            return BayesianOracle(max_trials=max_trials, **options)
        except (ImportError, RuntimeError) as error:
            raise UserError(f"--strategy bayesian needs scikit-learn ({error}); pip install scikit-learn") from error
    return HyperbandOracle(max_epochs=max_epochs, factor=HYPERBAND_FACTOR, **options)


def _may_be(hp, value: Any) -> bool:
    """True for a value that a hyperparameter may have; the logarithm of a range may round its ends a little beyond."""
    if not isinstance(hp, Numerical):
        return value in hp.values
    room = 1e-9 * (hp.max_value - hp.min_value)
    return isinstance(value, int | float) and hp.min_value - room <= value <= hp.max_value + room


def _write(path: pathlib.Path, values: Any) -> None:
    try:
        write_json(path, values)
    except UserError as error:
        raise SearchStopped(f"{error}, and type the command again") from error


class _ReleasedLock:
    """Opens an oracle's lock again if an exception left it closed."""

    def __init__(self, oracle):
        self.oracle = oracle

    def __enter__(self):
        self.held_before = self._is_held()

    def _is_held(self) -> bool:
        return kt_oracle.THREADS[self.oracle] == threading.current_thread().name

    def __exit__(self, kind, error, trace):
        if kind is not None and not self.held_before and self._is_held():
            kt_oracle.THREADS[self.oracle] = None
            kt_oracle.LOCKS[self.oracle].release()
