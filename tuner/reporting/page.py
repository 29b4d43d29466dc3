"""The report of a search as one HTML page that needs nothing beside it."""

import dataclasses
import datetime
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from sepnet.reports.pages import figure, page, players, table
from tuner.reporting.analysis import COSTS, Answer
from tuner.reporting.answer import (
    BUDGET_HEADINGS,
    BUDGET_TEXTS,
    answer_text,
    budget_rows,
    marks,
    mean_cost,
    mean_metric,
    other_rows,
    search_name,
    size_text,
    table_headings,
    table_rows,
)
from tuner.reporting.intervals import NUM_RESAMPLES

# Rows of the tables that stand out begin their last cell with one of these.
MARKS = ("best", "near-optimal")
# What each picture shows: heading, description for those who do not see it, caption.
PICTURES = {
    "mse_by_depth": (
        "Error by depth",
        "Validation error by depth, a line for each representation, with intervals and the baselines",
        "Lines join the best model of each depth; fainter points are other settings. The pale bar is the 95% interval "
        "of a model by itself. The dark bar is the interval of its paired difference to the best model, drawn from the "
        "best one's error, the thin horizontal line: a model whose dark bar lies above that line is worse.",
    ),
    "pareto": (
        "Error against cost",
        "Validation error against cost, every model a disc with its depth, with the Pareto front",
        "Each disc is a model and holds its depth. No model lies below and left of the front.",
    ),
    "losses": (
        "How the errors fell",
        "Validation error by epoch of every model, a field for each representation, the darker the less deep",
        "The mean over seeds. Lines that still fall at their end say that longer training may change the answer.",
    ),
    "budgets": (
        "Error by minutes",
        "Lowest validation error by minutes of every depth, a field for each representation, the darker the less deep",
        "The lowest error so far, mean over seeds, by the minutes of training and validation that each run had. Bars "
        "are 95% intervals, side by side around each budget of the table, for other seeds and the same segments: "
        "histories hold no errors of single segments. A run that is given only so long lets its learning rate fall "
        "sooner than these did, and may end lower.",
    ),
    "memory_by_depth": (
        "Memory by depth",
        "Planned memory of training by depth, a line for each representation, with the memory of common GPUs",
        "What training was planned to take on the machine of the search (without a GPU, all of its process), beside "
        "the memory of common GPUs. Hollow are models that did not fit, and were not trained.",
    ),
}


@dataclasses.dataclass(frozen=True)
class Example:
    """Estimates of a model for a stretch of a song; pictures and audio are data: URIs.

    Attributes:
        label: of the trial.
        song: its name.
        start_seconds, seconds: where the stretch begins, and its length.
        picture: spectrograms.
        mixture, sources, estimates: audio, the stems by name.
    """

    label: str
    song: str
    start_seconds: float
    seconds: float
    picture: str
    mixture: str
    sources: dict[str, str]
    estimates: dict[str, str]


def report_page(answer: Answer, pictures: Mapping[str, str], examples: Sequence[Example | str]) -> str:
    """The whole page.

    Args:
        answer: what the search says.
        pictures: PNGs as data: URIs by the keys of `PICTURES`.
        examples: what the chosen models make of a song, or why there is nothing to hear.
    """
    name = search_name(answer)
    made = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    sentences = "".join(f"<li>{escape(text)}</li>" for text in answer_text(answer))
    sections = [
        f"<h1>Depth search: {escape(name)}</h1>\n<p>{escape(size_text(answer))}. Written {made}.</p>",
        f'<ul class="answer">{sentences}</ul>',
        *(_models(answer) if answer.candidates else ()),
        *(_with_heading(uri, *PICTURES[key]) for key, uri in pictures.items()),
        *(_budgets(answer) if budget_rows(answer) else ()),
        *(_listening(examples) if examples else ()),
        *(_without_result(answer) if answer.others else ()),
        *([_method(answer)] if answer.candidates else ()),
        *_origin(answer),
    ]
    return page(f"Depth search: {name}", sections)


def _models(answer: Answer) -> Iterable[str]:
    yield "<h2>Models</h2>"
    yield table(
        "Errors of the completed models, the best first", table_headings(answer), table_rows(answer), marks=MARKS
    )
    headings = (
        "model",
        "SI-SDR, dB",
        "parameters",
        "receptive field",
        "training",
        *(cost.heading for cost in COSTS.values()),
        "",
    )
    rows = []
    for candidate in answer.candidates:
        trial = candidate.trial
        costs = ((mean_cost(trial, cost.key), cost) for cost in COSTS.values())
        field_ms = mean_cost(trial, "receptive_field_ms")
        rows.append(
            (
                trial.label,
                f"{mean_metric(trial, 'val_si_sdr'):.1f}",
                f"{mean_cost(trial, 'parameters'):,.0f}",
                f"{field_ms:,.0f} ms" if field_ms is not None else "all of the song",
                f"{mean_cost(trial, 'training_seconds') / 60:,.1f} min",
                *(f"{value * cost.factor:,.{cost.decimals}f}" if value is not None else "" for value, cost in costs),
                marks(answer, candidate),
            )
        )
    yield table("Other figures of the completed models, means over seeds", headings, rows, marks=MARKS)


def _budgets(answer: Answer) -> Iterable[str]:
    yield "<h2>The best depth by minutes</h2>"
    yield table(
        "The depth of the lowest error after so many minutes of each run; behind it, after “or” and commas, those that "
        "are not worse by more than the interval of their paired difference",
        BUDGET_HEADINGS,
        budget_rows(answer),
        texts=BUDGET_TEXTS,
    )


def _listening(examples: Sequence[Example | str]) -> Iterable[str]:
    yield "<h2>To see and hear</h2>"
    for example in examples:
        if isinstance(example, str):
            yield f'<p class="note">{escape(example)}</p>'
            continue
        label = example.label
        yield f"<h3>{escape(label)}</h3>"
        caption = f"Validation song {example.song}, {example.seconds:g} s from {example.start_seconds:g} s on."
        yield figure(example.picture, f"Spectrograms of {example.song}: mixture, true and predicted stems", caption)
        yield players([("mixture", example.mixture)], label)
        for source, true in example.sources.items():
            yield players([(f"{source}, true", true), (f"{source}, predicted", example.estimates[source])], label)


def _without_result(answer: Answer) -> Iterable[str]:
    yield "<h2>Trials without a result</h2>"
    yield table("Not in the answer above", ("model", "trial", ""), other_rows(answer))


def _method(answer: Answer) -> str:
    cost = COSTS[answer.cost]
    return (
        "<h2>How to read this</h2>\n<p><code>val_mse</code> is the mean squared error on the waveform at a run’s best "
        f"epoch, over the same {answer.num_segments} validation segments for every model. Two models are compared by "
        "their differences, segment by segment and seed by seed, so that what all find hard cancels out. An interval "
        f"covers 95%: segments are resampled {NUM_RESAMPLES:,} times, and Student’s t tells what so few seeds leave "
        "open. Segments of one song are alike, so other songs may differ by more. Each comparison stands for itself: "
        "of twenty intervals, one misses the truth.</p>\n"
        f"<p>The near-optimal model takes the least {cost.phrase} of those whose <code>val_mse</code> is not above the "
        "best one’s by more than the interval. The Pareto front holds the models than which no other is both as good "
        "and less costly.</p>"
    )


def _origin(answer: Answer) -> Iterable[str]:
    yield "<h2>Where this comes from</h2>"
    runs = [run.record for trial in answer.search.trials for run in trial.runs]
    for meter in _distinct(record.get("meter") for record in runs):
        yield f'<p class="note">{escape(meter_text(meter))}</p>'
    for heading, contents in (
        ("Settings of the search", [answer.search.settings]),
        ("Hardware", _distinct(record.get("hardware") for record in runs)),
        ("Versions", _distinct(record.get("versions") for record in runs)),
    ):
        for content in contents:
            yield f"<h3>{heading}</h3>\n<pre>{escape(json.dumps(content, indent=2, ensure_ascii=False))}</pre>"


def meter_text(meter: Mapping[str, str | None]) -> str:
    """A sentence on the meter behind the joules."""
    cpu, gpu = meter.get("cpu"), meter.get("gpu")
    measured_gpu = f"those of the GPU are measured by {gpu}" if gpu else "no GPU is in them"
    if cpu and "estimated" in cpu:
        return (
            f"Joules of the CPU are an estimate, not a measurement ({cpu}), and {measured_gpu}. Compare models of one "
            "search by them, and nothing else."
        )
    return f"Joules of the CPU are {f'measured by {cpu}' if cpu else 'not counted'}, and {measured_gpu}."


def _distinct(values: Iterable[Any]) -> list[Any]:
    """Values without repetitions; runs on several machines have more than one."""
    return list({json.dumps(value, sort_keys=True): value for value in values if value}.values())


def _with_heading(uri: str, heading: str, alternative: str, caption: str) -> str:
    return f"<h2>{escape(heading)}</h2>\n{figure(uri, alternative, caption)}"
