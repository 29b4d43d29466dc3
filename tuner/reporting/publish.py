"""Writes the report of a search into its folder: `report.html`, `trials.csv`, `budgets.csv` and `trials.json`."""

import csv
import functools
import io
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.errors import UserError
from pipelines.files import whole_file
from sepnet.config.run_folder import Run
from sepnet.reports.pages import audio_uri, picture_uri
from tuner.reporting import page, pictures
from tuner.reporting.analysis import Answer
from tuner.reporting.answer import budget_records, records, summary
from tuner.reporting.budgets import Budgets

REPORT, CSV, BUDGETS_CSV, JSON = "report.html", "trials.csv", "budgets.csv", "trials.json"
EXAMPLE_SECONDS = 8


def write_report(answer: Answer, audio: bool = True) -> pathlib.Path:
    """Writes the report of a search, done or not, into its folder; what the last report left is replaced.

    Args:
        answer: of the search.
        audio: lets the page play what the best and the near-optimal model make of a validation song.

    Returns:
        Path of the page.

    Raises:
        UserError: the folder cannot be written.
    """
    folder = answer.search.folder
    _write(folder / CSV, _csv_text(records(answer)))
    _write(folder / BUDGETS_CSV, _csv_text(budget_records(answer)))
    _write(folder / JSON, json.dumps(summary(answer), indent=2))
    examples = _examples(answer) if audio else []
    _write(folder / REPORT, page.report_page(answer, _pictures(answer), examples))
    return folder / REPORT


def _pictures(answer: Answer) -> dict[str, str]:
    """PNGs as data: URIs by the names that the page knows them by; a search without a result has none."""
    if not answer.best:
        return {}
    trials = [candidate.trial for candidate in answer.candidates]
    drawn = {
        "mse_by_depth": picture_uri(lambda target: pictures.draw_mse_by_depth(target, answer)),
        "pareto": picture_uri(lambda target: pictures.draw_pareto(target, answer)),
        "losses": picture_uri(lambda target: pictures.draw_losses(target, trials, answer.baselines)),
        "memory_by_depth": picture_uri(lambda target: pictures.draw_memory_by_depth(target, answer)),
    }
    if isinstance(answer.budgets, Budgets) and answer.budgets.budgets:
        drawn["budgets"] = picture_uri(lambda target: pictures.draw_budgets(target, answer.budgets, answer.baselines))
    return drawn


def _examples(answer: Answer) -> list[page.Example | str]:
    """Estimates of the chosen models for a song, for the page, or a line that says why there are none."""
    from sepnet.comparison.run_example import example_of_run

    chosen = {
        candidate.trial.trial_id: candidate.trial for candidate in (answer.best, answer.near_optimal) if candidate
    }
    examples: list[page.Example | str] = []
    for trial in chosen.values():
        try:
            examples.append(_example(trial.label, example_of_run(Run(trial.runs[0].folder), EXAMPLE_SECONDS)))
        except UserError as error:
            print(f"no audio of {trial.label}: {error}", file=sys.stderr)
            examples.append(f"No audio of {trial.label}: {error}.")
    return examples


def _example(label: str, heard) -> page.Example:
    from sepnet.reports.pictures import draw_separation

    stems = [heard.mixture, *heard.sources.values(), *heard.estimates.values()]
    # One gain for all, so that they stay comparable.
    peak = max(1.0, *(float(np.abs(stem).max()) for stem in stems))
    play = functools.partial(audio_uri, sample_rate=heard.sample_rate)
    arguments = heard.mixture, heard.sources, heard.estimates, heard.sample_rate
    return page.Example(
        label=label,
        song=heard.song,
        start_seconds=heard.start_seconds,
        seconds=heard.seconds,
        picture=picture_uri(lambda target: draw_separation(target, *arguments)),
        mixture=play(heard.mixture / peak),
        sources={name: play(stem / peak) for name, stem in heard.sources.items()},
        estimates={name: play(stem / peak) for name, stem in heard.estimates.items()},
    )


def _csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()


def _write(path: pathlib.Path, text: str) -> None:
    with whole_file(path) as temporary:
        # Names of files may be no UTF-8.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")
