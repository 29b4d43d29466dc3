"""PNG pictures of a search: error and memory by depth, the Pareto front, and how the losses fell."""

import io
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sepnet.config.run_folder import Run
from sepnet.reports.canvas import make_figure, save
from sepnet.reports.pictures import BASELINE_STYLES
from tuner.reporting.analysis import COSTS, Answer, Candidate
from tuner.reporting.budgets import Budgets
from tuner.searching.records import NOT_FITTING, Trial

MARKERS = "osD^v"
GPU_GIGABYTES = (8, 12, 16, 24, 40, 80)

Target = pathlib.Path | io.BytesIO


def draw_mse_by_depth(target: Target, answer: Answer) -> None:
    """Draws `val_mse` by depth, a line for each representation through its best trial of each depth.

    A pale bar is the interval of a model by itself. A dark bar is the interval of its paired difference to the best
    model, drawn from the best one's `val_mse`: where it ends above that line, the model is worse. Bars end at the
    frame, which is that of the means.

    Args:
        target: PNG to write.
        answer: with one candidate or more.
    """
    figure, axes = _figure(9, 5.2)
    best = answer.best.val_mse.value
    representations = _by_representation(answer)
    for place, (name, candidates) in enumerate(representations.items()):
        # Bars of several representations at one depth stand side by side.
        shift = 0.16 * (place - (len(representations) - 1) / 2)
        color, line = f"C{place}", _best_by_depth(candidates)
        for one in candidates:
            is_line = line[one.trial.depth] is one
            at, value = one.trial.depth + shift, one.val_mse
            if is_line:
                axes.vlines(at, value.low, value.high, color=color, alpha=0.22, linewidth=6)
                bar = {"fmt": "none", "ecolor": "0.15", "elinewidth": 1.2, "capsize": 3, "zorder": 3}
                low, high = best + one.behind.low, best + one.behind.high
                axes.errorbar(at, value.value, [[max(value.value - low, 0)], [max(high - value.value, 0)]], **bar)
            else:
                axes.plot(at, value.value, MARKERS[place % 5], color=color, alpha=0.3, markersize=4)
        depths = sorted(line)
        axes.plot(
            np.array(depths) + shift,
            [line[depth].val_mse.value for depth in depths],
            color=color,
            marker=MARKERS[place % 5],
            markersize=5,
            label=name,
        )
    axes.axhline(best, color="0.3", linewidth=0.8, label=f"best: {answer.best.trial.label}")
    for (name, figures), style in zip(answer.baselines.items(), BASELINE_STYLES, strict=False):
        axes.axhline(figures["val_mse"], color="black", linestyle=style, linewidth=1, label=name)
    axes.set(xlabel="depth", ylabel="val_mse")
    levels = [figures["val_mse"] for figures in answer.baselines.values()]
    _frame(axes, [*levels, *(one.val_mse.value for one in answer.candidates)])
    _finish(figure, axes)
    save(figure, target)


def draw_pareto(target: Target, answer: Answer) -> None:
    """Draws `val_mse` against the cost, each model as its depth, with the front, the best and the near-optimal marked.

    Args:
        target: PNG to write.
        answer: with one candidate or more.
    """
    figure, axes = _figure(9, 5.2)
    front = [(one.cost, one.val_mse.value) for one in answer.front]
    axes.step(*zip(*front, strict=True), where="post", color="0.5", linewidth=1.2, zorder=1, label="Pareto front")
    for place, (name, candidates) in enumerate(_by_representation(answer).items()):
        points = [(one.cost, one.val_mse.value) for one in candidates]
        style = {"s": 170, "color": f"C{place}", "marker": "o", "edgecolors": "white", "linewidths": 0.8}
        axes.scatter(*zip(*points, strict=True), zorder=2, label=name, **style)
        for one in candidates:
            at = {"ha": "center", "va": "center_baseline", "fontsize": 7.5, "color": "white", "zorder": 3}
            axes.text(one.cost, one.val_mse.value, str(one.trial.depth), **at, clip_on=True)
    for one, name, size, color in (
        (answer.best, "best", 420, "black"),
        (answer.near_optimal, "near-optimal", 640, "crimson"),
    ):
        label = f"{name}: {one.trial.label}"
        axes.scatter(one.cost, one.val_mse.value, s=size, facecolors="none", edgecolors=color, zorder=4, label=label)
    axes.set(xlabel=COSTS[answer.cost].heading, ylabel="val_mse")
    costs = [one.cost for one in answer.candidates]
    if max(costs) > 4 * min(costs):
        _scale(axes, "x", costs)
    _scale(axes, "y", [answer.best.val_mse.value])
    axes.margins(0.08)
    _finish(figure, axes, markerscale=0.6)
    save(figure, target)


def draw_losses(target: Target, trials: Sequence[Trial], baselines: Mapping[str, Mapping[str, float]]) -> None:
    """Draws `val_mse` by epoch of every trial, the mean over its seeds, one field for each representation.

    Args:
        target: PNG to write.
        trials: those with one finished run or more.
        baselines: figures by the baseline's name.
    """
    groups: dict[str, list[Trial]] = {}
    for trial in sorted(trials, key=lambda trial: (trial.representation, trial.depth)):
        groups.setdefault(trial.representation, []).append(trial)
    figure, fields = _fields(len(groups))
    colors, labels = _depth_colors(trials), {}
    histories = {
        trial.trial_id: mean_history([Run(run.folder).history["val_mse"] for run in trial.runs]) for trial in trials
    }
    drawn = [*(figures["val_mse"] for figures in baselines.values()), *np.concatenate(list(histories.values()))]
    for axes, (name, group) in zip(fields, groups.items(), strict=True):
        for trial in group:
            values = histories[trial.trial_id]
            epochs = np.arange(1, len(values) + 1)
            [line] = axes.plot(epochs, values, color=colors[trial.depth], linewidth=1.3, marker=".", markersize=4)
            labels.setdefault(f"depth {trial.depth}", line)
        labels |= _finish_field(axes, name, "epoch", baselines)
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        _scale(axes, "y", drawn)
    _finish_fields(figure, labels)
    save(figure, target)


def draw_budgets(target: Target, budgets: Budgets, baselines: Mapping[str, Mapping[str, float]]) -> None:
    """Draws the lowest `val_mse` by minutes of every depth, the mean over its seeds, one field for each kind of model.

    Bars are intervals at the budgets, side by side around each.

    Args:
        target: PNG to write.
        budgets: of one kind or more.
        baselines: figures by the baseline's name.
    """
    figure, fields = _fields(len(budgets.progress))
    colors, labels = _depth_colors([one.trial for group in budgets.progress.values() for one in group]), {}
    levels, lowest, ends = [row["val_mse"] for row in baselines.values()], [], []
    for axes, (kind, group) in zip(fields, budgets.progress.items(), strict=True):
        for one in group:
            minutes = np.unique(np.concatenate([curve.minutes for curve in one.curves.values()]))
            values = np.mean(list(one.at(minutes).values()), axis=0)
            [line] = axes.step(minutes, values, where="post", color=colors[one.trial.depth], linewidth=1.3)
            labels.setdefault(f"depth {one.trial.depth}", line)
            lowest, ends = [*lowest, np.nanmin(values)], [*ends, minutes[-1]]
        depths = [one.trial.depth for one in group]
        for budget in (budget for budget in budgets.budgets if budget.kind == kind):
            for standing in budget.standings:
                depth, value = standing.trial.depth, standing.val_mse
                at = budget.minutes * 1.025 ** (depths.index(depth) - (len(depths) - 1) / 2)
                axes.vlines(at, value.low, value.high, color=colors[depth], linewidth=1.3)
        labels |= _finish_field(axes, kind, "minutes", baselines)
    for axes in fields:
        _frame(axes, [*levels, *lowest])
        _scale(axes, "x", ends)
    _finish_fields(figure, labels)
    save(figure, target)


def draw_memory_by_depth(target: Target, answer: Answer) -> None:
    """Draws the planned memory of training by depth, with the memory of common GPUs as lines across.

    Of completed trials, lines join the best of each depth. Hollow are those that did not fit.

    Args:
        target: PNG to write.
        answer: with one candidate or more.
    """
    figure, axes = _figure(9, 4.6)
    not_fitting = [trial for trial in answer.others if trial.status == NOT_FITTING and trial.planned_bytes]
    completed = _by_representation(answer)
    names = sorted({*completed, *(trial.representation for trial in not_fitting)})
    planned = []

    def draw(trials: Sequence[Trial], **style) -> None:
        gigabytes = [trial.planned_bytes / 1e9 for trial in trials]
        planned.extend(gigabytes)
        axes.plot([trial.depth for trial in trials], gigabytes, **style)

    for place, name in enumerate(names):
        style = {"color": f"C{place}", "marker": MARKERS[place % 5]}
        line = _best_by_depth(completed.get(name, ()))
        draw([one.trial for one in completed.get(name, ())], **style, linestyle="", alpha=0.3)
        draw([line[depth].trial for depth in sorted(line)], **style, markersize=5, label=name)
        hollow = [trial for trial in not_fitting if trial.representation == name]
        if hollow:
            hollow_style = {"linestyle": "", "markersize": 7, "fillstyle": "none", "label": f"{name}, not fitting"}
            draw(hollow, **style, **hollow_style)
    axes.set(xlabel="depth", ylabel="GB to train, as planned")
    for limit in gpu_limits(planned):
        axes.axhline(limit, color="0.35", linestyle="--", linewidth=0.9)
        at = {"xytext": (4, 0), "textcoords": "offset points", "xycoords": ("axes fraction", "data"), "va": "center"}
        axes.annotate(f"{limit} GB GPU", (1, limit), **at, fontsize="x-small", color="0.35")
    _scale(axes, "y", planned)
    _finish(figure, axes)
    save(figure, target)


def gpu_limits(gigabytes: Iterable[float]) -> list[int]:
    """The sizes of common GPUs that lie among these figures, and the next one above them."""
    lowest, highest = min(gigabytes := list(gigabytes)), max(gigabytes)
    above = [size for size in GPU_GIGABYTES if size >= highest][:1]
    return [size for size in GPU_GIGABYTES if lowest <= size < highest] + above


def mean_history(histories: Sequence[Sequence[float]]) -> np.ndarray:
    """Mean by epoch over runs; where one has ended, the mean of the others goes on."""
    values = np.full((len(histories), max(map(len, histories))), np.nan)
    for row, history in zip(values, histories, strict=True):
        row[: len(history)] = history
    return np.nanmean(values, axis=0)


def _by_representation(answer: Answer) -> dict[str, list[Candidate]]:
    names = sorted({candidate.trial.representation for candidate in answer.candidates})
    return {name: [one for one in answer.candidates if one.trial.representation == name] for name in names}


def _best_by_depth(candidates: Iterable[Candidate]) -> dict[int, Candidate]:
    """The candidate of the lowest `val_mse` at each depth."""
    best: dict[int, Candidate] = {}
    for candidate in candidates:
        best.setdefault(candidate.trial.depth, candidate)
    return best


def _fields(number: int):
    """A figure and fields on the same axes, three in a row, and each with numbers of its own."""
    num_columns = min(number, 3)
    num_rows = math.ceil(number / num_columns)
    width, height = max(4 * num_columns, 8), 1 + 3.4 * num_rows
    figure, fields = _figure(width, height, num_rows, num_columns, sharex=True, sharey=True, squeeze=False)
    for axes in fields.flat[number:]:
        axes.remove()
    for axes in fields.flat[:number]:
        # Below some of the upper ones there may be none.
        axes.xaxis.set_tick_params(which="both", labelbottom=True)
    for row in fields:
        row[0].set_ylabel("val_mse")
    return figure, list(fields.flat[:number])


def _finish_field(axes, name: str, xlabel: str, baselines: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Gives a field its names, grid and baselines; returns the lines of these by their labels."""
    # A dollar in a value is no formula.
    axes.set_title(name, fontsize="medium").set_parse_math(False)
    axes.set(xlabel=xlabel)
    axes.grid(alpha=0.3, which="both")
    return {
        baseline: axes.axhline(figures["val_mse"], color="black", linestyle=style, linewidth=1)
        for (baseline, figures), style in zip(baselines.items(), BASELINE_STYLES, strict=False)
    }


def _finish_fields(figure, labels: Mapping[str, Any]) -> None:
    """Draws one legend for all fields, of lines by their labels, the depths in order and first."""
    order = sorted(labels, key=lambda label: (not label.startswith("depth"), len(label), label))
    lines, num_columns = [labels[label] for label in order], round(figure.get_figwidth() / 1.6)
    figure.legend(lines, order, loc="outside upper center", ncols=num_columns, fontsize="small")


def _depth_colors(trials: Iterable[Trial]) -> dict[int, Any]:
    import matplotlib

    depths = sorted({trial.depth for trial in trials})
    return dict(zip(depths, matplotlib.colormaps["viridis"](np.linspace(0, 0.92, len(depths))), strict=True))


def _finish(figure, axes, **legend) -> None:
    if axes.get_xlabel() == "depth":
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        low, high = axes.get_xlim()
        axes.set_xlim(min(low, math.ceil(low) - 0.3), max(high, math.floor(high) + 0.3))
    axes.grid(alpha=0.3, which="both")
    shown = figure.legend(loc="outside upper center", ncols=4, fontsize="small", **legend)
    for text in shown.get_texts():
        # A dollar in a value is no formula.
        text.set_parse_math(False)


def _scale(axes, name: str, values: Iterable[float]) -> None:
    """Makes the axis "x" or "y" logarithmic, with 0.5 and 20 for powers of ten; where a value is 0, it stays linear."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if min(values) <= 0:
        return
    axes.set(**{f"{name}scale": "log"})
    axis = getattr(axes, f"{name}axis")
    low, high = axis.get_view_interval()
    steps = {3: (1, 1.25, 1.5, 1.75, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8), 12: (1, 1.5, 2, 3, 4, 6, 8), math.inf: (1, 2, 5)}
    axis.set_major_locator(LogLocator(subs=next(subs for factor, subs in steps.items() if high < factor * low)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _frame(axes, values: Sequence[float]) -> None:
    """Scales the axis "y" to these values; first epochs and wide bars would leave little room for them."""
    if min(values) > 0:
        axes.set_ylim(0.9 * min(values), 1.1 * max(values))
    _scale(axes, "y", values)


def _figure(width: float, height: float, *grid: int, **options):
    figure = make_figure(width, height, dpi=110)
    return figure, figure.subplots(*grid, **options)
