"""`python -m tuner.report DIR`: says what a depth search has found, and writes its report, at any time."""

import argparse
import os
from collections.abc import Sequence

from pipelines.errors import CommandParser, one_line, run_command, user_path
from tuner.reporting.analysis import COSTS, DEFAULT_COST, analyse
from tuner.searching.records import read_search


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command.

    Raises:
        UserError: the folder is no search, or its trials cannot be compared.
    """
    arguments = _parser().parse_args(argv)
    # A search that still runs may hold all of the GPU's memory, and some seconds of audio need no GPU.
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

    from tuner.reporting.answer import print_answer
    from tuner.reporting.publish import write_report

    answer = analyse(read_search(arguments.folder), arguments.cost)
    print_answer(answer)
    print(f"report: {one_line(write_report(answer, audio=not arguments.no_audio))}")


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="python -m tuner.report", description=__doc__.partition(": ")[2], allow_abbrev=False)
    parser.add_argument("folder", type=user_path, metavar="DIR", help="searches/NAME")
    costs = "; ".join(f"{name}: {cost.help}" for name, cost in COSTS.items())
    parser.add_argument(
        "--cost",
        choices=tuple(COSTS),
        default=DEFAULT_COST,
        help=f"what the near-optimal model takes the least of ({costs}) [{DEFAULT_COST}]",
    )
    parser.add_argument("--no-audio", action="store_true", help="leave out the song: quicker, and a smaller page")
    return parser


if __name__ == "__main__":
    run_command(main)
