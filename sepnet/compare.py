"""`python -m sepnet.compare RUN...`: draws several runs together and sets their figures side by side."""

import argparse
import csv
import json
import pathlib
from collections.abc import Sequence

from pipelines.errors import CommandParser, UserError, run_command


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command.

    Raises:
        UserError: a folder is no finished run, or the runs were judged on different segments.
    """
    arguments = _parser().parse_args(argv)
    summaries = {run: _read_summary(run) for run in arguments.runs}
    _check_comparable(summaries)

    from pipelines.files import whole_file
    from sepnet.pictures import draw_runs

    histories = {_label(run, summary): _read_val_mse(run) for run, summary in summaries.items()}
    baselines = next(iter(summaries.values()))["baselines"]
    with whole_file(arguments.output) as temporary:
        draw_runs(temporary, histories, {name: figures["val_mse"] for name, figures in baselines.items()})
    _print_table(summaries, baselines)
    print(f"picture: {arguments.output}")


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="python -m sepnet.compare", description=__doc__.partition(": ")[2], allow_abbrev=False)
    parser.add_argument("runs", type=pathlib.Path, nargs="+", metavar="RUN", help="runs/NAME")
    parser.add_argument(
        "-o", "--output", type=pathlib.Path, default=pathlib.Path("comparison.png"), help="picture [comparison.png]"
    )
    return parser


def _read_summary(run: pathlib.Path) -> dict:
    try:
        return json.loads((run / "summary.json").read_text())
    except OSError as error:
        raise UserError(f"{run} holds no summary.json ({error.strerror}); give the folders of finished runs") from error
    except ValueError as error:
        raise UserError(f"{run / 'summary.json'} is damaged ({error}); finish the run with --resume {run}") from error


def _read_val_mse(run: pathlib.Path) -> list[float]:
    with (run / "history.csv").open(newline="") as file:
        return [float(row["val_mse"]) for row in csv.DictReader(file)]


def _check_comparable(summaries: dict[pathlib.Path, dict]) -> None:
    """The same segments give silence the same error; runs of which this is not true say nothing about each other."""
    (first, summary), *others = summaries.items()
    for run, other in others:
        if abs(other["baselines"]["silence"]["val_mse"] / summary["baselines"]["silence"]["val_mse"] - 1) > 1e-5:
            raise UserError(
                f"{run} and {first} were judged on different segments; train them with the same --data, "
                "--sample-rate, --validation-seconds and --validation-segments"
            )


def _label(run: pathlib.Path, summary: dict) -> str:
    return f"{run.name} ({summary['family']}, depth {summary['depth']})"


def _print_table(summaries: dict[pathlib.Path, dict], baselines: dict[str, dict[str, float]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for heading in ("run", "family", "depth", "parameters", "minutes", "val_mse", "SI-SDR dB"):
        table.add_column(heading, justify="left" if heading in ("run", "family") else "right", overflow="fold")
    for run, summary in sorted(summaries.items(), key=lambda item: item[1]["metrics"]["val_mse"]):
        costs, metrics = summary["costs"], summary["metrics"]
        table.add_row(
            run.name,
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
