"""KerasTuner's tuner, each run of a trial in a process of its own."""

import os
import pathlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import keras_tuner
import keras_tuner.src.config
import psutil

from pipelines.errors import UserError, unforeseen
from pipelines.files import remove_leftovers, remove_leftovers_of, whole_folder
from pipelines.songs.layouts import data_folder
from sepnet.config.config import Config
from sepnet.config.run_folder import Run
from sepnet.config.songs import data_root
from tuner.searching.oracles import SearchStopped
from tuner.searching.records import (
    CONTINUED,
    FAILED,
    LOG,
    NOT_FITTING,
    OUTCOME,
    RECORD,
    REPRESENTATION,
    no_number,
    read_runs,
    write_json,
)
from tuner.searching.search_space import with_values
from tuner.searching.settings import check_as_begun
from tuner.searching.workers import NO_SPACE_STATUS, PARENT, last_error

SECONDS_BETWEEN_LOOKS = 0.2
SECONDS_BETWEEN_QUESTIONS = 1.0
SMALLEST_FREE_BYTES = 200 * 10**6

# Else a trial that fails prints where in the code that was noticed.
keras_tuner.src.config.DEBUG = False


class DepthTuner(keras_tuner.Tuner):
    """Runs trials: every seed of one is a process that trains, validates and measures, and can be killed.

    A run that is done is not run again when its trial is, and one that was killed goes on inside.

    Args:
        oracle: of `tuner.searching.oracles`.
        bases: the config of each representation, whose other fields stay.
        settings: of the search, by which a worker that was started with others is refused.
        sample_rate: of the songs, Hz.
        seeds: of the runs of each trial.
        memory_bytes: limit; a trial whose plan exceeds it is not started, and on a CPU
            a run that exceeds it is killed.
        try_anyway: starts also trials whose plans exceed the limit.
        device: owner of the memory that is planned, "cpu" or "gpu".
        report: called with a line for people whenever something begins or ends.
        **options: `directory` and `project_name` of `keras_tuner.Tuner`.
    """

    def __init__(
        self,
        oracle,
        *,
        bases: Mapping[str, Config],
        settings: Mapping[str, Any],
        sample_rate: int,
        seeds: Sequence[int],
        memory_bytes: int,
        try_anyway: bool,
        device: str,
        report: Callable[[str], None],
        **options,
    ):
        self.bases = bases
        self.settings = settings
        self.sample_rate = sample_rate
        self.seeds = list(seeds)
        self.memory_bytes = memory_bytes
        self.try_anyway = try_anyway
        self.device = device
        self.report = report
        self._asked = 0.0
        super().__init__(oracle=oracle, **options)

    def _get_tuner_fname(self):
        """The tuner has no state of its own; and TensorFlow, which looks for it, does not know all names of files."""
        return ""

    def _populate_initial_space(self):
        """Goes on with the trials that there are; the oracle knows the space already, so nothing is built."""
        if not self._is_worker() and pathlib.Path(self.oracle._get_oracle_fname()).exists():
            self.reload()

    @property
    def project_dir(self):
        return str(pathlib.Path(self.directory, self.project_name))

    def get_trial_dir(self, trial_id):
        return str(pathlib.Path(self.project_dir, f"trial_{trial_id}"))

    def save(self):
        if not self._is_worker():
            self.oracle.save()

    def reload(self):
        """Goes on from the files of an earlier start, also where each model has more seeds now.

        Raises:
            UserError: a file of the search is damaged.
        """
        self.oracle.reload()
        for trial_id, trial in self.oracle.trials.items():
            if trial.status == "COMPLETED":
                done = {run.seed for run in read_runs(pathlib.Path(self.get_trial_dir(trial_id)))}
                # (Of one that has none any more, somebody has removed them.)
                if done and not done >= set(self.seeds):
                    self.oracle.ask_again(trial_id)

    def pre_create_trial(self):
        """Waits a moment where the last question was answered with nothing to do."""
        wait = self._asked + SECONDS_BETWEEN_QUESTIONS - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        self._asked = time.monotonic()

    def run_trial(self, trial, *arguments, **keywords) -> dict[str, float]:
        """Runs the seeds of a trial that are not done yet, and returns the means over all.

        Raises:
            SearchStopped: the songs are gone, or nothing can be written.
        """
        try:
            return self._run_trial(trial.trial_id, dict(trial.hyperparameters.values))
        except SearchStopped:
            raise
        except (UserError, OSError) as error:
            raise SearchStopped(f"{error}; mend that, and type the command again") from error

    def _run_trial(self, trial_id: str, values: Mapping[str, Any]) -> dict[str, float]:
        folder = pathlib.Path(self.get_trial_dir(trial_id))
        (folder / OUTCOME).unlink(missing_ok=True)
        self._refuse_to_go_on_without(folder, values)
        try:
            for seed in self.seeds:
                self._run(folder / f"seed_{seed}", values, seed)
            runs = read_runs(folder)
            if wrong := no_number(runs):
                raise _NoResult(FAILED, wrong)
        except _NoResult as error:
            self._end_without_result(trial_id, error)
        except (UserError, OSError):
            raise
        except Exception as error:
            # Of Keras or TensorFlow, which build the model for its plan: others may well be built.
            self._end_without_result(trial_id, _NoResult(FAILED, str(unforeseen(error))))
        # Do not wait before asking for the next trial.
        self._asked = 0.0
        return mean_figures([run.record for run in runs])

    def _end_without_result(self, trial_id: str, error: "_NoResult") -> NoReturn:
        plan = {"planned_bytes": error.planned_bytes} if error.planned_bytes else {}
        write_json(
            pathlib.Path(self.get_trial_dir(trial_id)) / OUTCOME, {"status": error.status, "reason": str(error), **plan}
        )
        self.report(f"trial {trial_id}: {error.status}: {error}")
        raise keras_tuner.errors.FailedTrialError(str(error)) from error

    def _refuse_to_go_on_without(self, folder: pathlib.Path, values: Mapping[str, Any]) -> None:
        check_as_begun(folder.parent, self.settings)
        data = self.bases[values[REPRESENTATION]].data
        if data.data is not None and not data_folder(data_root(data)).exists():
            raise SearchStopped(f"the songs {data.data} are no longer there; put them back, and type the command again")
        free = shutil.disk_usage(folder).free
        if free < SMALLEST_FREE_BYTES:
            raise SearchStopped(
                f"{folder.parent} has {free / 1e6:.0f} MB of free disk; make room for {SMALLEST_FREE_BYTES / 1e6:.0f} "
                "MB, and type the command again"
            )

    def _run(self, folder: pathlib.Path, values: Mapping[str, Any], seed: int) -> None:
        if (folder / RECORD).exists():
            return
        try:
            config = with_values(self.bases[values[REPRESENTATION]], values, seed)
            self._check_that_it_fits(config)
        except _NoResult:
            raise
        except UserError as error:
            raise _NoResult(FAILED, str(error)) from error
        self._go_on_from_earlier_round(folder, values)
        Run(folder).write_config(config)
        with (folder / LOG).open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tuner.trial", str(folder)],
                env={**os.environ, PARENT: str(os.getpid())},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            try:
                most = self._watch(process)
            finally:
                process.kill()
                process.wait()
                remove_leftovers_of(process.pid, folder)
        if most is not None:
            raise _NoResult(
                FAILED,
                f"seed {seed} took {most / 1e9:.2f} GB of the {self.memory_bytes / 1e9:.2f} GB that --memory allows, "
                "and was killed",
            )
        if process.returncode == NO_SPACE_STATUS:
            # The log may have had no room either.
            words, search = last_error(folder / LOG) or "disk full", folder.parents[1]
            raise SearchStopped(f"{search} has no room left ({words}); make some, and type the command again")
        if process.returncode:
            # Not the trial's fault, perhaps.
            self._refuse_to_go_on_without(folder.parent, values)
            raise _NoResult(FAILED, f"seed {seed}: {_how_it_ended(process.returncode, folder / LOG)}")

    def _go_on_from_earlier_round(self, folder: pathlib.Path, values: Mapping[str, Any]) -> None:
        """Gives a run of a later round of Hyperband what the run of the earlier one has left, and it goes on there."""
        if CONTINUED not in values or folder.exists():
            return
        earlier = Run(pathlib.Path(self.get_trial_dir(values[CONTINUED])) / folder.name)
        checkpoints = earlier.best_weights, earlier.last_state
        if not all(path.exists() for path in checkpoints):
            raise _NoResult(FAILED, f"it continues {values[CONTINUED]}, whose {folder.name} has lost its checkpoints")
        remove_leftovers(folder.parent)
        with whole_folder(folder) as temporary:
            for path in checkpoints:
                copy = temporary / path.relative_to(earlier.folder)
                copy.parent.mkdir(exist_ok=True)
                shutil.copyfile(path, copy)

    def _check_that_it_fits(self, config) -> None:
        from sepnet.planning.step_memory import training_bytes

        try:
            config.check_depth(self.sample_rate)
        except UserError as error:
            raise _NoResult(NOT_FITTING, str(error)) from error
        planned = training_bytes(config, self.sample_rate, self.device)
        if planned > self.memory_bytes and not self.try_anyway:
            raise _NoResult(
                NOT_FITTING,
                f"training takes {planned / 1e9:.2f} GB of {self.memory_bytes / 1e9:.2f} GB, by its plan",
                planned,
            )

    def _watch(self, process: subprocess.Popen) -> int | None:
        """Waits for a process; where it takes more of a CPU's memory than it may, returns what it takes."""
        if self.device != "cpu":
            process.wait()
            return None
        while process.poll() is None:
            time.sleep(SECONDS_BETWEEN_LOOKS)
            try:
                taken = psutil.Process(process.pid).memory_info().rss
            except psutil.NoSuchProcess:
                continue
            if taken > self.memory_bytes:
                return taken
        return None


class _NoResult(UserError):
    """A trial ends without a result."""

    def __init__(self, status: str, reason: str, planned_bytes: int | None = None):
        super().__init__(reason)
        self.status = status
        self.planned_bytes = planned_bytes


def mean_figures(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The mean of each figure over the runs of a trial, by its name, as KerasTuner keeps them."""
    figures = [{**record["metrics"], **record["costs"]} for record in records]
    names = [name for name in figures[0] if all(isinstance(row[name], int | float) for row in figures)]
    return {name: sum(float(row[name]) for row in figures) / len(figures) for name in names if name != "epoch"}


def _how_it_ended(status: int, log: pathlib.Path) -> str:
    if status < 0:
        return f"it was killed by signal {-status}" + (" (for memory, perhaps)" if status == -9 else "")
    return last_error(log) or f"it ended with status {status}"
