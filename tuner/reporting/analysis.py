"""Analysis of a depth search: the best model, the near-optimal one, the Pareto front, and what depth buys.

The trials are judged on the same segments, and trained from the same seeds, so two of them are compared by the
differences of their errors, segment by segment and seed by seed. What all find hard then cancels out.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from pipelines.errors import UserError
from sepnet.measures.baselines import SILENCE
from tuner.reporting.budgets import Budgets, follow_budgets
from tuner.reporting.intervals import Bootstrap, Estimate
from tuner.searching.records import Search, Trial


@dataclasses.dataclass(frozen=True)
class Cost:
    """Something that a better model should not take more of.

    Attributes:
        key: of the "costs" of a run's record.
        heading: for tables and axes, with the unit.
        phrase: for sentences: a model takes the least of it.
        factor: from the record's unit to the heading's.
        decimals: that are shown.
        help: for `--cost`.
    """

    key: str
    heading: str
    phrase: str
    factor: float
    decimals: int
    help: str


COSTS = {
    "joules": Cost("separation_joules", "J/s of audio", "energy to separate", 1, 3, "to separate audio"),
    "training-joules": Cost("training_joules", "kJ to train", "energy to train", 1e-3, 2, "energy to train"),
    "gflop": Cost("gflop_per_second", "GFLOP/s of audio", "operations", 1, 2, "operations to separate audio"),
    "memory": Cost("peak_bytes", "GB at the peak", "memory", 1e-9, 2, "peak of the memory in training"),
    "latency": Cost("separation_seconds", "ms/s of audio", "time to separate", 1e3, 1, "time to separate audio"),
}
DEFAULT_COST = "joules"


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A completed trial among the others.

    Attributes:
        trial: the trial.
        val_mse: mean and interval, for other segments like these.
        behind: paired difference to the best candidate, above zero where this one is worse.
        cost: mean over seeds, in the unit of the cost's heading.
        on_front: no other is as good and less costly, or better and as costly.
    """

    trial: Trial
    val_mse: Estimate
    behind: Estimate
    cost: float
    on_front: bool

    @property
    def may_be_best(self) -> bool:
        """True if it is not worse than the best one by more than the interval."""
        return self.behind.low <= 0


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two depths of one representation, and the paired difference, below zero where the deeper one is better."""

    deeper: Trial
    shallower: Trial
    difference: Estimate

    @property
    def is_better(self) -> bool:
        return self.difference.high < 0

    @property
    def is_worse(self) -> bool:
        return self.difference.low > 0


@dataclasses.dataclass(frozen=True)
class Depths:
    """Depths of one representation compared, all else being equal.

    Attributes:
        name: the representation, with the knobs behind it.
        enough: the smallest depth than which no deeper one is better.
        against: `enough` against the deepest, and against the one of the lowest `val_mse` if that is another, and
            deeper.
        gain: that more depth than the next smaller one pays; None where `enough` is the smallest.
    """

    name: str
    enough: Trial
    against: tuple[Comparison, ...]
    gain: Comparison | None


@dataclasses.dataclass(frozen=True)
class Answer:
    """The result of a search, as far as it is done.

    Attributes:
        search: the search.
        cost: a key of `COSTS`.
        candidates: completed trials, the best first.
        near_optimal: the least costly candidate that may be the best; None where there is none.
        depths: for each representation, and set of knobs, of which two depths or more are completed.
        budgets: how their best depths move with the budget, or why that is not known.
        baselines: figures of what needs no model, by name, as in a record.
        num_segments: validation segments behind every estimate.
    """

    search: Search
    cost: str
    candidates: tuple[Candidate, ...]
    near_optimal: Candidate | None
    depths: tuple[Depths, ...]
    budgets: Budgets | str
    baselines: dict[str, dict[str, float]]
    num_segments: int

    @property
    def best(self) -> Candidate | None:
        """The candidate of the lowest mean `val_mse`."""
        return self.candidates[0] if self.candidates else None

    @property
    def front(self) -> list[Candidate]:
        """The Pareto front, from the least costly to the best."""
        return sorted((one for one in self.candidates if one.on_front), key=lambda one: (one.cost, -one.val_mse.value))

    @property
    def others(self) -> list[Trial]:
        """The trials that have no result, or none yet."""
        done = {candidate.trial.trial_id for candidate in self.candidates}
        return [trial for trial in self.search.trials if trial.trial_id not in done]


def analyse(search: Search, cost: str = DEFAULT_COST) -> Answer:
    """Analyses a search.

    Args:
        search: also one that still runs, or has no result.
        cost: a key of `COSTS`.

    Raises:
        UserError: an unknown cost, one that was not measured, or trials that were judged on different segments.
    """
    if cost not in COSTS:
        raise UserError(f"unknown cost {cost!r}; choose one of {', '.join(COSTS)}")
    # Of a completed trial someone may have removed the runs.
    trials = [trial for trial in search.completed if trial.runs]
    if not trials:
        return Answer(search, cost, (), None, (), Budgets({}, ()), {}, 0)
    num_segments = _check_comparable(trials)
    bootstrap = Bootstrap(num_segments)
    costs = [_mean_cost(trial, cost) for trial in trials]
    values = [bootstrap.estimate(np.stack(list(_errors(trial).values()))) for trial in trials]
    front = pareto_front([value.value for value in values], costs)
    best = trials[min(range(len(trials)), key=lambda index: (values[index].value, costs[index]))]
    candidates = [
        Candidate(trial, value, compare(bootstrap, trial, best), price, is_on)
        for trial, value, price, is_on in zip(trials, values, costs, front, strict=True)
    ]
    candidates.sort(key=lambda one: (one.val_mse.value, one.cost))
    near_optimal = min(filter(lambda one: one.may_be_best, candidates), key=lambda one: one.cost)
    groups = _groups(candidates)
    return Answer(
        search=search,
        cost=cost,
        candidates=tuple(candidates),
        near_optimal=near_optimal,
        depths=tuple(what_depth_buys(bootstrap, group) for group in groups),
        budgets=follow_budgets(groups),
        baselines=trials[0].runs[0].record["baselines"],
        num_segments=num_segments,
    )


def compare(bootstrap: Bootstrap, trial: Trial, other: Trial) -> Estimate:
    """The error of a trial less that of another, paired by segments, and by seeds where both have the same."""
    return bootstrap.difference(_errors(trial), _errors(other))


def pareto_front(values: Sequence[float], costs: Sequence[float]) -> list[bool]:
    """Says of each if it is on the front: no other is as good in both and better in one; lower is better."""
    pairs = np.stack([values, costs], axis=1)
    no_worse, better = (pairs[:, None] <= pairs).all(axis=2), (pairs[:, None] < pairs).any(axis=2)
    return [bool(is_on) for is_on in ~(no_worse & better).any(axis=0)]


def what_depth_buys(bootstrap: Bootstrap, trials: Sequence[Trial]) -> Depths:
    """Compares the depths of trials that differ in nothing else, two or more, by depth."""

    def versus(deeper: Trial, shallower: Trial) -> Comparison:
        return Comparison(deeper, shallower, compare(bootstrap, deeper, shallower))

    def better_than(place: int) -> list[Comparison]:
        comparisons = (versus(deeper, trials[place]) for deeper in trials[place + 1 :])
        return sorted((one for one in comparisons if one.is_better), key=lambda one: one.difference.value)

    place = next(place for place in range(len(trials)) if not better_than(place))
    enough, deepest = trials[place], trials[-1]
    lowest = min(trials[place:], key=lambda trial: np.mean(list(_errors(trial).values())))
    rivals = [deepest] if lowest in (enough, deepest) else [deepest, lowest]
    return Depths(
        enough.kind,
        enough,
        tuple(versus(rival, enough) for rival in rivals if rival is not enough),
        better_than(place - 1)[0] if place else None,
    )


def _groups(candidates: Iterable[Candidate]) -> list[list[Trial]]:
    """The trials that differ in depth alone, two or more, by depth; of two that do not differ, the better one."""
    groups: dict[str, dict[int, Trial]] = {}
    for candidate in candidates:
        trial = candidate.trial
        groups.setdefault(trial.kind, {}).setdefault(trial.depth, trial)
    return [[trials[depth] for depth in sorted(trials)] for _, trials in sorted(groups.items()) if len(trials) > 1]


def _errors(trial: Trial) -> dict[int, np.ndarray]:
    """Mean squared errors over the sources, `[num_segments]`, by seed."""
    return {run.seed: np.mean(run.record["segment_mse"], axis=1) for run in trial.runs}


def _mean_cost(trial: Trial, cost: str) -> float:
    figures = [run.record["costs"].get(COSTS[cost].key) for run in trial.runs]
    if None in figures:
        others = ", ".join(name for name in COSTS if name != cost)
        raise UserError(f"trial {trial.trial_id} ({trial.label}) has no {cost}; choose another --cost: {others}")
    return float(np.mean(figures)) * COSTS[cost].factor


def _check_comparable(trials: Sequence[Trial]) -> int:
    """The number of segments that all runs share; on the same segments, silence has the same error."""
    runs = [(trial, run) for trial in trials for run in trial.runs]
    (first, shared), *others = [
        (trial, (len(run.record["segment_mse"]), run.record["baselines"][SILENCE]["val_mse"])) for trial, run in runs
    ]
    for trial, (num_segments, silence) in others:
        if num_segments != shared[0] or not np.isclose(silence, shared[1], rtol=1e-5, atol=0):
            raise UserError(
                f"trials {first.trial_id} ({first.label}, {shared[0]} segments) and {trial.trial_id} ({trial.label}, "
                f"{num_segments} segments) were judged on different ones; search anew under another --name"
            )
    return shared[0]
