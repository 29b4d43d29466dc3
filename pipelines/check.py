"""`python -m pipelines.check PATH`: says what is in a folder of songs or recordings, and what is wrong with it."""

from collections.abc import Sequence

from pipelines.errors import CommandParser, UserError, positive, run_command, user_path
from pipelines.songs.check_output import print_document, print_tables
from pipelines.songs.inspection import check_songs
from pipelines.songs.layouts import MIXTURE

DEFAULT_SOURCES = "vocals,drums,bass,other"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns 1 if anything is wrong."""
    parser = CommandParser(
        prog="python -m pipelines.check",
        description="Says what is in a folder of songs: splits, lengths, sample rates, and whatever is wrong with a "
        "song. The exit status is 1 if anything is wrong.",
    )
    parser.add_argument("path", type=user_path, help="folder of songs")
    parser.add_argument(
        "--sources",
        default=DEFAULT_SOURCES,
        metavar="NAMES",
        help="names of the sources that every song should have, or of the folders of recordings (default: %(default)s)",
    )
    parser.add_argument("--all", action="store_true", help="list every song, not only those with problems")
    parser.add_argument("--json", action="store_true", help="print one JSON document, for programs")
    parser.add_argument("--workers", type=positive, metavar="N", help="processes (default: one for each CPU core)")
    options = parser.parse_args(argv)
    stems = [name.strip() for name in options.sources.split(",") if name.strip()]
    if "=" in options.sources:
        raise UserError(f"--sources {options.sources!r} has sums; name the stems themselves, like {DEFAULT_SOURCES}")
    if len(set(stems)) < 2 or MIXTURE in stems:
        raise UserError(
            f"--sources {options.sources!r} will not do; expected two or more names, like {DEFAULT_SOURCES}"
        )
    report = check_songs(options.path, stems, workers=options.workers)
    if options.json:
        print_document(report, options.path, stems)
    else:
        print_tables(report, options.path, show_all=options.all)
    return 0 if report.is_good else 1


if __name__ == "__main__":
    run_command(main)
