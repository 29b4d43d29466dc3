"""Finds the best depth for smaller budgets, by the histories of a search's own runs.

Minutes are those that `--budget` counts: of training and validation, in all sittings of a run, not of the songs and the
set-up before. The validation that follows the end of a run's budget is not counted, as it is not there.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from pipelines.errors import UserError, one_line
from sepnet.config.run_folder import Run
from tuner.reporting.intervals import Bootstrap, Estimate
from tuner.searching.records import Trial

# Of the minutes that every run has had.
SHARES = (1 / 8, 1 / 4, 1 / 2, 1)


@dataclasses.dataclass(frozen=True)
class Curve:
    """The lowest `val_mse` of a run as its minutes pass.

    Attributes:
        minutes: at the end of each epoch.
        lowest: `val_mse` of the epochs until then.
        end: minutes until which the run is known.
    """

    minutes: np.ndarray
    lowest: np.ndarray
    end: float

    def at(self, minutes: Sequence[float]) -> np.ndarray:
        """The lowest `val_mse` after so many minutes; NaN before the end of the first epoch."""
        return np.concatenate([[np.nan], self.lowest])[np.searchsorted(self.minutes, minutes, side="right")]


@dataclasses.dataclass(frozen=True)
class Progress:
    """The runs of a trial.

    Attributes:
        trial: the trial.
        curves: by seed.
    """

    trial: Trial
    curves: dict[int, Curve]

    def at(self, minutes: Sequence[float]) -> dict[int, np.ndarray]:
        """As `Curve.at`, by seed."""
        return {seed: curve.at(minutes) for seed, curve in self.curves.items()}


@dataclasses.dataclass(frozen=True)
class Standing:
    """A depth after some minutes, beside the others of its kind.

    Attributes:
        trial: the trial.
        val_mse: the lowest until then, mean over seeds, with an interval for other seeds and the same segments:
            histories hold no errors of single segments.
        behind: paired difference to the best, with such an interval.
    """

    trial: Trial
    val_mse: Estimate
    behind: Estimate

    @property
    def may_be_best(self) -> bool:
        """True if it is not worse than the best one by more than the interval."""
        return self.behind.low <= 0


@dataclasses.dataclass(frozen=True)
class Budget:
    """Depths of one kind after some minutes.

    Attributes:
        kind: of the trials.
        minutes: that each run had.
        standings: of the trials of which every run had ended an epoch, the best first.
        too_slow: the other trials.
    """

    kind: str
    minutes: float
    standings: tuple[Standing, ...]
    too_slow: tuple[Trial, ...]


@dataclasses.dataclass(frozen=True)
class Budgets:
    """Depths as the minutes pass.

    Attributes:
        progress: of the trials of each kind, by depth.
        budgets: of each kind one for each of `SHARES`.
    """

    progress: dict[str, list[Progress]]
    budgets: tuple[Budget, ...]


def follow_budgets(groups: Sequence[Sequence[Trial]]) -> Budgets | str:
    """Compares the depths of each group at smaller budgets than they were given.

    Args:
        groups: trials that differ in depth alone, by depth.

    Returns:
        The comparisons, or why there are none: a run has not kept when its epochs ended, as older versions did not.
    """
    try:
        progress = {
            trials[0].kind: [
                Progress(trial, {run.seed: _curve(Run(run.folder)) for run in trial.runs}) for trial in trials
            ]
            for trials in groups
        }
    except UserError as error:
        return one_line(error)
    ends = [curve.end for group in progress.values() for one in group for curve in one.curves.values()]
    bootstrap = Bootstrap(num_segments=1)
    return Budgets(
        progress,
        tuple(
            _compare(bootstrap, kind, group, share * min(ends)) for kind, group in progress.items() for share in SHARES
        ),
    )


def _compare(bootstrap: Bootstrap, kind: str, group: Sequence[Progress], minutes: float) -> Budget:
    errors = [(one.trial, one.at([minutes])) for one in group]
    known = [(trial, by_seed) for trial, by_seed in errors if not np.isnan(list(by_seed.values())).any()]
    known.sort(key=lambda pair: np.mean(list(pair[1].values())))
    standings = (
        Standing(
            trial,
            bootstrap.estimate(np.stack(list(by_seed.values()))),
            bootstrap.difference(by_seed, known[0][1]),
        )
        for trial, by_seed in known
    )
    too_slow = (trial for trial, by_seed in errors if np.isnan(list(by_seed.values())).any())
    return Budget(kind, minutes, tuple(standings), tuple(too_slow))


def _curve(run: Run) -> Curve:
    """Reads a run.

    Raises:
        UserError: a file of it is gone or damaged, or lacks the time of an epoch.
    """
    minutes, limit = np.array([seconds for seconds, _ in run.spent]) / 60, run.config.training.minutes
    errors = run.history["val_mse"]
    if len(minutes) != len(errors) or not np.isfinite(minutes).all() or (np.diff(minutes, prepend=0) <= 0).any():
        raise UserError(f"{run.spent_file} does not say when each epoch ended; search anew under another --name")
    return Curve(np.minimum(minutes, limit or np.inf), np.minimum.accumulate(errors), limit or minutes[-1])
