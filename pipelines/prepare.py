"""`python -m pipelines.prepare SOURCE DEST`: converts songs once to 16-bit WAV, which can be streamed."""

from collections.abc import Sequence

from pipelines.audio.wav import MOST_HZ
from pipelines.copies.make import prepare_songs
from pipelines.errors import CommandParser, positive, positive_up_to, run_command, user_path


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = CommandParser(
        prog="python -m pipelines.prepare",
        description="Converts songs once to 16-bit WAV in the layout of MUSDB18-HQ, so that they can be streamed. "
        "Started again, it goes on where it was.",
    )
    parser.add_argument("source", type=user_path, help="folder of .stem.mp4 files, or of folders of WAV or FLAC")
    parser.add_argument("destination", type=user_path, help="folder for the copy")
    parser.add_argument(
        "--sample-rate", type=positive_up_to(MOST_HZ), metavar="HZ", help="to resample to (default: keep it)"
    )
    parser.add_argument("--workers", type=positive, metavar="N", help="processes (default: one for each CPU core)")
    parser.add_argument("--skip-bad", action="store_true", help="leave songs that cannot be used out, and list them")
    options = parser.parse_args(argv)
    prepare_songs(
        options.source,
        options.destination,
        sample_rate=options.sample_rate,
        workers=options.workers,
        skip_bad=options.skip_bad,
    )


if __name__ == "__main__":
    run_command(main)
