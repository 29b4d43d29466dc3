"""The answer of a search in words, as a table in the terminal, and as rows for CSV and JSON."""

import math
from typing import Any

from pipelines.errors import one_line
from pipelines.tables import make_console, print_table
from tuner.reporting.analysis import COSTS, Answer, Candidate, Comparison, Depths
from tuner.reporting.budgets import SHARES, Budget
from tuner.reporting.intervals import LEVEL, NUM_RESAMPLES, Estimate
from tuner.searching.records import COMPLETED, RUNNING, Trial

HEADINGS = ("model", "val_mse", "95% interval", "behind the best")
OWN_INTERVAL = HEADINGS.index("95% interval")
BUDGET_HEADINGS = ("model", "minutes", "best depth", "val_mse", "95% interval", "no epoch yet")
BUDGET_TEXTS = (0, 2, 5)
# Of a terminal, in characters.
FULL_WIDTH = 110


def answer_text(answer: Answer) -> list[str]:
    """The answer in sentences, one or two for each finding."""
    if not answer.best:
        return [f"No trial is completed{_counts(answer)}: there is nothing to compare."]
    texts = [_best_text(answer)]
    if len(answer.candidates) > 1:
        texts.append(_near_optimal_text(answer))
        texts += [text for depths in answer.depths for text in _depth_texts(answer, depths)]
        if not answer.depths:
            texts.append("No two depths of one representation, all else being equal, are completed.")
        if isinstance(answer.budgets, str):
            texts.append(f"How the best depth moves with the budget is not known: {answer.budgets}.")
        texts.append(_interval_text(answer))
    else:
        texts.append("It is the only trial that is completed: there is nothing to compare it with.")
    if answer.others:
        texts.append(f"Not in this answer{_counts(answer)}.")
    return texts


def print_answer(answer: Answer) -> None:
    """Prints the answer of a search: its trials in tables, and the sentences."""
    from rich.text import Text

    console = make_console(FULL_WIDTH)
    if answer.candidates:
        # A narrow terminal has no room for the intervals of models by themselves, which the report shows.
        places = [place for place in range(len(HEADINGS) + 2) if console.width >= FULL_WIDTH or place != OWN_INTERVAL]
        headings, *rows = ([row[place] for place in places] for row in (table_headings(answer), *table_rows(answer)))
        print_table(
            headings,
            rows,
            title=f"{search_name(answer)}: {size_text(answer)}",
            texts=(0, len(places) - 1),
            boxed=False,
            folded=(0, len(places) - 1),
            console=console,
        )
    if rows := budget_rows(answer):
        print_table(
            BUDGET_HEADINGS,
            rows,
            title="the best depth by the minutes of each run",
            texts=BUDGET_TEXTS,
            boxed=False,
            folded=BUDGET_TEXTS,
            section_rows=len(SHARES),
            console=console,
        )
    if answer.others:
        title = "trials without a result"
        print_table(
            ("model", "trial", ""), other_rows(answer), title=title, texts=(0, 1, 2), boxed=False, console=console
        )
    for text in answer_text(answer):
        # (A `Text` is shown as it is; a plain one may hold markup.)
        console.print(Text(text))


def search_name(answer: Answer) -> str:
    """The name of the search as it can be shown."""
    return one_line(answer.search.folder.resolve().name)


def table_headings(answer: Answer) -> tuple[str, ...]:
    """Headings of `table_rows`."""
    return (*HEADINGS, COSTS[answer.cost].heading, "")


def table_rows(answer: Answer) -> list[tuple[str, ...]]:
    """Cells of the completed trials, the best first, and of the baselines among them."""
    digits = decimals(answer, 3)
    rows = [(candidate.val_mse.value, _candidate_row(answer, candidate)) for candidate in answer.candidates]
    for name, figures in answer.baselines.items():
        rows.append((figures["val_mse"], (name, f"{figures['val_mse']:.{digits}f}", "", "", "", "no model")))
    return [cells for _, cells in sorted(rows, key=lambda row: row[0])]


def budget_rows(answer: Answer) -> list[tuple[str, ...]]:
    """Cells of each kind of model at each budget; of depths that may be best, that of the lowest `val_mse` first."""
    if isinstance(answer.budgets, str):
        return []
    digits, rows = decimals(answer, 3), []
    for budget in answer.budgets.budgets:
        slow = ", ".join(str(trial.depth) for trial in budget.too_slow)
        best, value, interval = "", "", ""
        if budget.standings:
            *others, last = (str(standing.trial.depth) for standing in budget.standings if standing.may_be_best)
            best = f"{', '.join(others)} or {last}" if others else last
            estimate = budget.standings[0].val_mse
            value = f"{estimate.value:.{digits}f}"
            interval = f"{estimate.low:.{digits}f}–{estimate.high:.{digits}f}" if estimate.num_seeds > 1 else "one seed"
        rows.append((budget.kind, f"{budget.minutes:.3g}", best, value, interval, slow))
    return rows


def budget_records(answer: Answer) -> list[dict[str, Any]]:
    """A row for each depth at each budget, in plain values, the best first; None where a run has ended no epoch yet."""
    rows = []
    for budget in () if isinstance(answer.budgets, str) else answer.budgets.budgets:
        for standing in budget.standings:
            figures = _interval("val_mse", standing.val_mse) | _interval("behind_best", standing.behind)
            rows.append(_minutes(budget, standing.trial) | figures | {"may_be_best": standing.may_be_best})
        rows += [_minutes(budget, trial) for trial in budget.too_slow]
    return [dict.fromkeys(max(rows, key=len)) | row for row in rows]


def other_rows(answer: Answer) -> list[tuple[str, str, str]]:
    """Model, trial and reason of the trials that have no result, or none yet."""
    return [(trial.label, trial.trial_id, _state_text(trial)) for trial in answer.others]


def records(answer: Answer) -> list[dict[str, Any]]:
    """A row for each trial, completed ones first and the best before all, in plain values; None where there is none."""
    rows = []
    for candidate in answer.candidates:
        figures = {
            **_interval("val_mse", candidate.val_mse),
            **_interval("behind_best", candidate.behind),
            **{name: mean_metric(candidate.trial, name) for name in _metrics_of_sources(answer)},
            "val_si_sdr": mean_metric(candidate.trial, "val_si_sdr"),
            **{cost.key: mean_cost(candidate.trial, cost.key) for cost in COSTS.values()},
            **{key: mean_cost(candidate.trial, key) for key in ("parameters", "receptive_field_ms")},
            **{key: mean_cost(candidate.trial, key) for key in ("planned_training_bytes", "training_seconds")},
            "on_front": candidate.on_front,
            "is_best": candidate is answer.best,
            "is_near_optimal": candidate is answer.near_optimal,
        }
        rows.append(_identity(candidate.trial) | figures)
    # All rows have the columns of the first.
    empty = dict.fromkeys(rows[0]) if rows else {}
    return rows + [
        empty | _identity(trial) | {"planned_training_bytes": trial.planned_bytes} for trial in answer.others
    ]


def summary(answer: Answer) -> dict[str, Any]:
    """The whole answer in plain values, for JSON."""
    return {
        "search": search_name(answer),
        "cost": answer.cost,
        "level": LEVEL,
        "num_resamples": NUM_RESAMPLES,
        "num_segments": answer.num_segments,
        "best": answer.best and answer.best.trial.trial_id,
        "near_optimal": answer.near_optimal and answer.near_optimal.trial.trial_id,
        "front": [candidate.trial.trial_id for candidate in answer.front],
        "depths": [
            {
                "representation": depths.enough.representation,
                "knobs": depths.enough.knobs,
                "enough": depths.enough.depth,
                "comparisons": [_comparison_values(one) for one in (*depths.against, depths.gain) if one],
            }
            for depths in answer.depths
        ],
        "sentences": answer_text(answer),
        "baselines": answer.baselines,
        "trials": records(answer),
        "budgets": budget_records(answer),
    }


def decimals(answer: Answer, num_digits: int) -> int:
    """Decimals that show so many digits of the best `val_mse`, and five at least."""
    best = answer.best.val_mse.value if answer.best else 0
    return max(5, num_digits - 1 - math.floor(math.log10(best))) if best > 0 else 5


def cost_text(answer: Answer, candidate: Candidate) -> str:
    """A candidate's cost as it is shown, without its unit."""
    return f"{candidate.cost:,.{COSTS[answer.cost].decimals}f}"


def size_text(answer: Answer) -> str:
    """The numbers of trials, seeds and segments behind the answer."""
    trials = _count(len(answer.candidates), "completed trial")
    seeds = sorted({len(candidate.trial.runs) for candidate in answer.candidates})
    if not seeds:
        return trials
    counted = " or ".join(map(str, seeds))
    return f"{trials}, {counted} {'seed' if seeds == [1] else 'seeds'} each, {answer.num_segments} validation segments"


def mean_metric(trial: Trial, name: str) -> float:
    """Mean over the runs of a metric of their best epochs."""
    return sum(run.record["metrics"][name] for run in trial.runs) / len(trial.runs)


def _metrics_of_sources(answer: Answer) -> list[str]:
    """Names of the errors of single sources, which all runs have."""
    return [f"val_mse_{source}" for source in answer.candidates[0].trial.runs[0].record["sources"]]


def mean_cost(trial: Trial, key: str) -> float | None:
    """Mean over the runs of a cost of their records; None if one has none."""
    values = [run.record["costs"].get(key) for run in trial.runs]
    return None if None in values or not values else sum(values) / len(values)


def marks(answer: Answer, candidate: Candidate) -> str:
    """The distinctions of a candidate: "best", "near-optimal", "front"."""
    names = {
        "best": candidate is answer.best,
        "near-optimal": candidate is answer.near_optimal,
        "front": candidate.on_front,
    }
    return ", ".join(name for name, holds in names.items() if holds)


def _candidate_row(answer: Answer, candidate: Candidate) -> tuple[str, ...]:
    digits, value, behind = decimals(answer, 3), candidate.val_mse, candidate.behind
    return (
        candidate.trial.label,
        f"{value.value:.{digits}f}",
        f"{value.low:.{digits}f}–{value.high:.{digits}f}",
        "" if candidate is answer.best else f"{behind.low:+.{digits}f} to {behind.high:+.{digits}f}",
        cost_text(answer, candidate),
        marks(answer, candidate),
    )


def _state_text(trial: Trial) -> str:
    """Returns the reason that a trial has no result."""
    if trial.status == RUNNING:
        return f"still running, {_count(len(trial.runs), 'run')} done"
    if trial.status == COMPLETED:
        return "completed, but its runs are gone"
    return f"{trial.status}: {trial.reason}" if trial.reason else trial.status


def _identity(trial: Trial) -> dict[str, Any]:
    return {
        "trial_id": trial.trial_id,
        "representation": trial.representation,
        "depth": trial.depth,
        "knobs": " ".join(f"{name}={value}" for name, value in trial.knobs.items()),
        "status": trial.status,
        "reason": trial.reason,
        "seeds": " ".join(str(run.seed) for run in trial.runs),
    }


def _minutes(budget: Budget, trial: Trial) -> dict[str, Any]:
    identity = _identity(trial)
    return {
        "minutes": budget.minutes,
        **{name: identity[name] for name in ("trial_id", "representation", "depth", "knobs", "seeds")},
    }


def _interval(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _comparison_values(comparison: Comparison) -> dict[str, Any]:
    difference = comparison.difference
    return {
        "deeper": comparison.deeper.depth,
        "shallower": comparison.shallower.depth,
        "difference": difference.value,
        "low": difference.low,
        "high": difference.high,
        "num_seeds": difference.num_seeds,
    }


def _best_text(answer: Answer) -> str:
    best, digits = answer.best, decimals(answer, 4)
    value = best.val_mse.value
    listed = " and ".join(_gain_text(value, name, figures["val_mse"]) for name, figures in answer.baselines.items())
    text = f"Best: {best.trial.label}, val_mse {value:.{digits}f}, {listed}."
    if any(figures["val_mse"] <= value for figures in answer.baselines.values()):
        text += " No model has learned to separate yet: train longer before you read anything into the depths."
    return text


def _gain_text(value: float, name: str, baseline: float) -> str:
    """The distance of an error to that of a baseline; either may be 0, as that of silence is where all is silent."""
    if value == 0 or baseline == 0:
        return f"{'below' if value < baseline else 'as' if value == baseline else 'ABOVE'} {name}"
    gain_db = 10 * (math.log10(baseline) - math.log10(value))
    return f"{abs(gain_db):.1f} dB {'below' if gain_db >= 0 else 'ABOVE'} {name}"


def _near_optimal_text(answer: Answer) -> str:
    chosen, best, cost = answer.near_optimal, answer.best, COSTS[answer.cost]
    rule = f"takes the least {cost.phrase} of those whose val_mse is not above the best one's by more than the interval"
    if chosen is best:
        return f"Near-optimal: the same, {chosen.trial.label}: it {rule} ({cost_text(answer, chosen)} {cost.heading})."
    saved = f"{cost_text(answer, chosen)} instead of {cost_text(answer, best)} {cost.heading}"
    return f"Near-optimal: {chosen.trial.label} {rule} ({saved}; {_difference_text(answer, chosen.behind)})."


def _depth_texts(answer: Answer, depths: Depths) -> list[str]:
    texts = []
    for comparison in depths.against:
        but = ", but worse" if comparison.is_worse else ""
        texts.append(
            f"{depths.name}: depth {comparison.deeper.depth} is not better than depth {depths.enough.depth} here{but} "
            f"({_difference_text(answer, comparison.difference)})."
        )
    if depths.gain:
        gain = depths.gain
        texts.append(
            f"{depths.name}: depth {gain.deeper.depth} is better than depth {gain.shallower.depth} "
            f"({_difference_text(answer, gain.difference)})."
        )
    return texts


def _difference_text(answer: Answer, difference: Estimate) -> str:
    digits = decimals(answer, 4)
    value, low, high = (f"{figure:+.{digits}f}" for figure in (difference.value, difference.low, difference.high))
    return f"difference {value}, 95% interval {low} to {high}"


def _interval_text(answer: Answer) -> str:
    if min(candidate.behind.num_seeds for candidate in answer.candidates) > 1:
        return "The intervals hold for other seeds and for other segments of such songs."
    return (
        "Models were trained from one seed, or from different ones: differences from run to run are not in these "
        "intervals. Search with more --seeds before you trust a small difference."
    )


def _counts(answer: Answer) -> str:
    """The numbers of trials without a result, by status."""
    statuses = [trial.status for trial in answer.others]
    counts = [f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses)]
    return f" ({', '.join(counts)})" if counts else ""


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
