"""`python -m sepnet.compare RUN...`: sets runs side by side, or with --song what models make of one song."""

import argparse
import math
import pathlib
from collections.abc import Sequence

from pipelines.errors import CommandParser, UserError, run_command, user_path
from sepnet.comparison.runs import compare_runs
from sepnet.comparison.song import compare_models
from sepnet.config.data import MOST_SECONDS, Data
from sepnet.config.flags import add_flags_of, section_from_flags
from sepnet.config.run_folder import Run
from sepnet.options.checks import flag

SONG_SECONDS = 10
# How songs are found and read, as in training.
SONG_OPTIONS = ("data", "sources", "sample_rate", "snr_db", "skip_bad")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command.

    Raises:
        UserError: a folder is no finished run, or no model, or they cannot be compared; there is no such song.
    """
    arguments = _parser().parse_args(argv)
    if arguments.output.is_dir():
        raise UserError(f"--output is {arguments.output}, a folder; name the picture in it, such as comparison.png")
    if arguments.output.suffix.lower() not in ("", ".png"):
        raise UserError(
            f"--output is {arguments.output}, and the picture is a PNG; give it a name such as comparison.png"
        )
    if arguments.song is None:
        for name in (*SONG_OPTIONS, "seconds", "start"):
            if getattr(arguments, name, None) is not None:
                raise UserError(
                    f"{flag(name)} says what to draw of a song; give --song as well, and models instead of runs"
                )
        compare_runs([Run(folder) for folder in arguments.folders], arguments.output)
        return
    for name, least, words in (("seconds", math.ulp(0.0), "more than 0"), ("start", 0.0, "0 or more")):
        value = getattr(arguments, name)
        if value is not None and not least <= value <= MOST_SECONDS:
            raise UserError(f"--{name} is {value:g}; expected seconds, {words} and at most {MOST_SECONDS:g}")
    compare_models(
        arguments.folders,
        arguments.song,
        section_from_flags(Data, arguments),
        arguments.output,
        seconds=SONG_SECONDS if arguments.seconds is None else arguments.seconds,
        start_seconds=arguments.start,
    )


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


if __name__ == "__main__":
    run_command(main)
