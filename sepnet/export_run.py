"""`python -m sepnet.export_run RUN`: exports the best weights of a finished run as a SavedModel once more."""

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence

from pipelines.errors import CommandParser, run_command, user_path
from sepnet.config.run_folder import Run
from sepnet.export.write import export_run
from sepnet.models.keras_settings import load_keras


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command.

    Raises:
        UserError: the run has not finished, or is damaged.
    """
    arguments = _parser().parse_args(argv)
    load_keras()
    folder = arguments.to or pathlib.Path("saved_models") / arguments.run.resolve().name
    record = json.load(sys.stdin) if arguments.record_from_stdin else None
    print(export_run(Run(arguments.run), folder, record))


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="python -m sepnet.export_run", description=__doc__.partition(": ")[2], allow_abbrev=False
    )
    parser.add_argument("run", type=user_path, help="runs/NAME")
    parser.add_argument("--to", type=user_path, metavar="FOLDER", help="the model's folder [saved_models/NAME]")
    # For `sepnet.export.write.export_run`, which starts this command where TensorFlow is not the back end.
    parser.add_argument("--record-from-stdin", action="store_true", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    run_command(main)
