"""KerasTuner's oracles, mended: they survive being killed at any moment, and workers that die.

What is wrong with them (KerasTuner 1.4.8): `GridSearch` forgets its order in a restart and stops early; state is
written in place, so that a kill can leave half a file; a trial whose file is there but not its entry in the oracle's
is never run; the lock stays closed after an exception; a search ends for workers that ask while another one's trial
may still be given back; a space of few models is taken for exhausted while some are left, or (`BayesianOptimization`)
one of them is tried again and again; `Hyperband` has no later rounds where a trial of an earlier one failed, or where
there are fewer models than that should have.
"""

import json
import math
import pathlib
import shutil
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import keras_tuner
from keras_tuner.src.engine import oracle as kt_oracle
from keras_tuner.src.engine.trial import TrialStatus

from pipelines.errors import UserError
from tuner.records import write_json

OBJECTIVE = keras_tuner.Objective("val_mse", "min")
HYPERBAND_FACTOR = 3
# Draws of what was drawn before, after which there is nothing new.
MOST_COLLISIONS = 1000


class SearchStopped(UserError, keras_tuner.errors.FatalError):
    """Something that every trial would fail of: the search stops, and goes on when it is mended."""


class Steady:
    """Mixed into an oracle of KerasTuner; see above."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self._max_collisions = MOST_COLLISIONS

    def create_trial(self, tuner_id):
        with _Released(self):
            trial = super().create_trial(tuner_id)
            if trial.status == TrialStatus.STOPPED and self.ongoing_trials:
                # Its worker may die, and somebody must be there to whom the trial can be given.
                trial.status = TrialStatus.IDLE
                self.tuner_ids.add(tuner_id)
            return trial

    def end_trial(self, trial):
        with _Released(self):
            super().end_trial(trial)

    def update_trial(self, trial_id, metrics, step=0):
        with _Released(self):
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

    def save(self):
        _write(pathlib.Path(self._get_oracle_fname()), self.get_state())

    def _save_trial(self, trial):
        _write(pathlib.Path(self._get_trial_dir(trial.trial_id)) / "trial.json", trial.get_state())

    def reload(self):
        folder = pathlib.Path(self._project_dir)
        state = json.loads(pathlib.Path(self._get_oracle_fname()).read_text())
        for path in folder.glob("trial_*"):
            # Killed before the oracle knew of it, it was not begun: it is made anew, with the same values.
            if path.name.removeprefix("trial_") not in state["start_order"]:
                shutil.rmtree(path)
        super().reload()
        # Killed before the oracle knew of its end, it is given out again, and its runs are found to be done.
        for trial_id in self._retry_queue:
            self.trials[trial_id].status = TrialStatus.RUNNING


class GridOracle(Steady, keras_tuner.Oracle):
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


class RandomOracle(Steady, keras_tuner.oracles.RandomSearchOracle):
    """KerasTuner's random search."""


class BayesianOracle(Steady, keras_tuner.oracles.BayesianOptimizationOracle):
    """KerasTuner's Bayesian search; where it would try a model again, it draws another one."""

    def populate_space(self, trial_id):
        response = super().populate_space(trial_id)
        is_known = response["status"] == TrialStatus.RUNNING and self._duplicate(response["values"])
        return self._random_populate_space() if is_known else response


class HyperbandOracle(Steady, keras_tuner.oracles.HyperbandOracle):
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
        space: `tuner.search_space.Space`.
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


def _write(path: pathlib.Path, values: Any) -> None:
    try:
        write_json(path, values)
    except UserError as error:
        raise SearchStopped(f"{error}, and type the command again") from error


class _Released:
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
