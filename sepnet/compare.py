"""`python -m sepnet.compare RUN...`: sets runs side by side, or with --song what models make of one song."""

import argparse
import csv
import json
import math
import pathlib
from collections.abc import Sequence

from pipelines.errors import CommandParser, UserError, one_line, run_command, user_path
from sepnet.config.data import Data
from sepnet.config.flags import add_flags_of, section_from_flags

SONG_SECONDS = 10
# How songs are found and read, as in training.
SONG_OPTIONS = ("data", "sources", "sample_rate", "skip_bad")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command.

    Raises:
        UserError: a folder is no finished run, or no model, or they cannot be compared; there is no such song.
    """
    arguments = _parser().parse_args(argv)
    if arguments.song is not None:
        _compare_models(arguments)
        return
    for name in (*SONG_OPTIONS, "seconds", "start"):
        if getattr(arguments, name, None) is not None:
            flag = f"--{name.replace('_', '-')}"
            raise UserError(f"{flag} says what to draw of a song; give --song as well, and models instead of runs")
    _compare_runs(arguments.folders, arguments.output)


def _compare_runs(runs: Sequence[pathlib.Path], picture: pathlib.Path) -> None:
    summaries = {run: _read_summary(run) for run in runs}
    _check_comparable(summaries)

    from pipelines.files import whole_file
    from sepnet.reports.pictures import draw_runs

    names = _names(list(summaries))
    histories = {
        f"{names[run]} ({summary['family']}, depth {summary['depth']})": _read_val_mse(run)
        for run, summary in summaries.items()
    }
    baselines = next(iter(summaries.values()))["baselines"]
    with whole_file(picture) as temporary:
        draw_runs(temporary, histories, {name: figures["val_mse"] for name, figures in baselines.items()})
    _print_table(summaries, baselines)
    print(f"picture: {picture}")


def _compare_models(arguments: argparse.Namespace) -> None:
    for name, least in (("seconds", 0), ("start", -1)):
        value = getattr(arguments, name)
        if value is not None and not least < value < float("inf"):
            raise UserError(f"--{name} is {value:g}; expected seconds{', more than 0' if name == 'seconds' else ''}")
    from sepnet.comparison.song import compare_on_song, find_track
    from sepnet.config.songs import data_of
    from sepnet.export.saved_model import read_models

    models, parts = read_models(arguments.folders)
    data = data_of(parts, section_from_flags(Data, arguments))
    track, parts = find_track(arguments.song, data), data.parts

    from pipelines.files import check_writable, whole_file
    from sepnet.comparison.song_page import comparison_page
    from sepnet.comparison.song_pictures import draw_song

    check_writable(arguments.output.parent)
    seconds = SONG_SECONDS if arguments.seconds is None else arguments.seconds
    comparison = compare_on_song(models, parts, track, seconds=seconds, start_seconds=arguments.start)
    page = arguments.output.with_suffix(".html")
    with whole_file(arguments.output) as temporary_picture, whole_file(page) as temporary_page:
        draw_song(temporary_picture, comparison)
        # A name may hold bytes that are no UTF-8.
        temporary_page.write_text(comparison_page(comparison), encoding="utf-8", errors="backslashreplace")
    _print_errors(comparison)
    print(f"picture: {arguments.output}")
    print(f"page:    {page}")


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="python -m sepnet.compare", description=__doc__.partition(": ")[2], allow_abbrev=False)
    parser.add_argument(
        "folders", type=user_path, nargs="+", metavar="RUN", help="runs/NAME; with --song, saved_models/NAME"
    )
    parser.add_argument("--song", help="folder of a song with its true stems, or the name of a song in --data")
    add_flags_of(parser, Data, SONG_OPTIONS)
    parser.add_argument("--seconds", type=float, help=f"how much of the song is drawn and played [{SONG_SECONDS}]")
    parser.add_argument("--start", type=float, help="where that begins, s (default: the loudest with all sources)")
    parser.add_argument(
        "-o",
        "--output",
        type=user_path,
        default=pathlib.Path("comparison.png"),
        help="picture; of a song, the page is beside it as .html [comparison.png]",
    )
    return parser


def _read_summary(run: pathlib.Path) -> dict:
    try:
        summary = json.loads((run / "summary.json").read_text())
        for name in ("val_mse", "val_si_sdr"):
            for figures in (summary["metrics"], *summary["baselines"].values()):
                float(figures[name])
        float(summary["costs"]["parameters"] + summary["costs"]["training_seconds"])
        return summary
    except OSError as error:
        raise UserError(f"{run} holds no summary.json ({error.strerror}); give the folders of finished runs") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{run / 'summary.json'} is damaged ({error}); finish the run with --resume {run}") from error


def _read_val_mse(run: pathlib.Path) -> list[float]:
    try:
        with (run / "history.csv").open(newline="") as file:
            return [float(row["val_mse"]) for row in csv.DictReader(file)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{run / 'history.csv'} cannot be read ({error!r}); train the run anew") from error


def _check_comparable(summaries: dict[pathlib.Path, dict]) -> None:
    """The same segments give silence the same error; runs of which this is not true say nothing about each other."""
    (first, summary), *others = summaries.items()
    for run, other in others:
        silence, other_silence = (each["baselines"]["silence"]["val_mse"] for each in (summary, other))
        # Both are 0 where validation songs are silent.
        if not math.isclose(silence, other_silence, rel_tol=1e-5):
            raise UserError(
                f"{run} and {first} were judged on different segments; train them with the same --data, "
                "--sample-rate, --validation-seconds and --validation-segments"
            )


def _names(runs: Sequence[pathlib.Path]) -> dict[pathlib.Path, str]:
    """What each run is called: its folder's name, or its path where two have one name."""
    short = {run: run.resolve().name for run in runs}
    return short if len(set(short.values())) == len(runs) else {run: str(run) for run in runs}


def _print_errors(comparison: "Comparison") -> None:  # noqa: F821
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(one_line(f"mean squared error: {comparison.song}, {comparison.stretch}")))
    table.add_column("", overflow="fold")
    for heading in ("all", *comparison.sources):
        table.add_column(escape(heading), justify="right")
    for name, errors in comparison.errors().items():
        values = [sum(errors.values()) / len(errors), *errors.values()]
        table.add_row(escape(one_line(name)), *(f"{value:.5f}" for value in values))
    Console().print(table)


def _print_table(summaries: dict[pathlib.Path, dict], baselines: dict[str, dict[str, float]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table, names = Table(), _names(list(summaries))
    for heading in ("run", "family", "depth", "parameters", "minutes", "val_mse", "SI-SDR dB"):
        table.add_column(heading, justify="left" if heading in ("run", "family") else "right", overflow="fold")
    for run, summary in sorted(summaries.items(), key=lambda item: item[1]["metrics"]["val_mse"]):
        costs, metrics = summary["costs"], summary["metrics"]
        table.add_row(
            escape(one_line(names[run])),
            summary["family"],
            str(summary["depth"]),
            f"{costs['parameters']:,}",
            f"{costs['training_seconds'] / 60:.1f}",
            f"{metrics['val_mse']:.5f}",
            f"{metrics['val_si_sdr']:.1f}",
        )
    for name, figures in baselines.items():
        table.add_row(name, "", "", "", "", f"{figures['val_mse']:.5f}", f"{figures['val_si_sdr']:.1f}")
    Console().print(table)


if __name__ == "__main__":
    run_command(main)
