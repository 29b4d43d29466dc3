"""Runs side by side: their figures in a table, and `val_mse` by epoch in one picture."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.errors import UserError, one_line
from pipelines.files import whole_file
from pipelines.tables import print_table
from sepnet.config.run_folder import Run
from sepnet.export.saved_model import short_names
from sepnet.measures.baselines import SILENCE
from sepnet.reports.pictures import draw_runs

HEADINGS = ("run", "family", "depth", "parameters", "minutes", "val_mse", "SI-SDR dB")


def compare_runs(runs: Sequence[Run], picture: pathlib.Path) -> None:
    """Prints the figures of finished runs, the best first, and draws their `val_mse` by epoch.

    Raises:
        UserError: a folder is no finished run, the runs were judged on different segments, or the picture cannot be
            written.
    """
    summaries = {run: run.summary for run in runs}
    _check_comparable(summaries)
    names = dict(zip(runs, short_names([run.folder for run in runs]), strict=True))
    baselines = summaries[runs[0]]["baselines"]
    histories = {
        f"{names[run]} ({summary['family']}, depth {summary['depth']})": run.history["val_mse"]
        for run, summary in summaries.items()
    }
    with whole_file(picture) as temporary:
        draw_runs(temporary, histories, {name: figures["val_mse"] for name, figures in baselines.items()})
    best_first = sorted(summaries, key=lambda run: summaries[run]["metrics"]["val_mse"])
    rows = [_row(names[run], summaries[run]) for run in best_first]
    rows += [(name, "", "", "", "", *_errors(figures)) for name, figures in baselines.items()]
    print_table(HEADINGS, rows, texts=(0, 1))
    print(f"picture: {picture}")


def _check_comparable(summaries: Mapping[Run, Mapping[str, Any]]) -> None:
    """Refuses runs in which silence has different errors, for these were judged on different segments."""
    (first, summary), *others = summaries.items()
    for run, other in others:
        silence, other_silence = (each["baselines"][SILENCE]["val_mse"] for each in (summary, other))
        # Both are 0 where validation songs are silent.
        if not math.isclose(silence, other_silence, rel_tol=1e-5):
            raise UserError(
                f"{run} and {first} were judged on different segments; train them with the same --data, --sources, "
                "--num-channels, --sample-rate, --validation-seconds and --validation-segments"
            )


def _row(name: str, summary: Mapping[str, Any]) -> tuple[str, ...]:
    costs = summary["costs"]
    return (
        one_line(name),
        summary["family"],
        str(summary["depth"]),
        f"{costs['parameters']:,}",
        f"{costs['training_seconds'] / 60:.1f}",
        *_errors(summary["metrics"]),
    )


def _errors(figures: Mapping[str, float]) -> tuple[str, str]:
    return f"{figures['val_mse']:.5f}", f"{figures['val_si_sdr']:.1f}"
