"""`python -m sepnet.preview DEST`: writes a page on which a stem set is seen, and clips of it are heard."""

import argparse
import pathlib
from collections.abc import Sequence

from pipelines.errors import CommandParser, UserError, one_line, positive, run_command, user_path
from pipelines.files import check_writable, whole_file
from pipelines.storage import address_of, is_local, open_place
from sepnet.stem_sets.destination import Destination
from sepnet.stem_sets.overview import read_audio, read_overview

PAGE = "preview.html"


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command.

    Raises:
        UserError: there is no finished set, it is damaged, or the page cannot be written.
    """
    arguments = _parser().parse_args(argv)
    system, root = open_place(arguments.dest)
    if arguments.to is None and not is_local(system):
        raise UserError(f"{arguments.dest} is not on this machine; say with --to where the page is written")
    path = arguments.to or pathlib.Path(root) / PAGE
    if path.is_dir():
        raise UserError(f"{path} is a folder; give --to a file, such as {path / PAGE}")
    destination = Destination(address_of(system, root))
    overview = read_overview(destination, arguments.clips, arguments.seed)
    check_writable(path.parent)
    audio = read_audio(destination, overview.sample)
    # matplotlib, which draws the pictures, takes a while: only for a set that can be read.
    from sepnet.stem_sets.preview_page import preview_page

    text = preview_page(one_line(root.rstrip("/").rpartition("/")[2]), overview, audio)
    with whole_file(path) as file:
        file.write_text(text, encoding="utf-8")
    print(f"page:      {path}")


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="python -m sepnet.preview", description=__doc__.partition(": ")[2], allow_abbrev=False)
    parser.add_argument("dest", metavar="DEST", help="folder of a stem set that sepnet.augment finished")
    parser.add_argument("--clips", type=positive, default=24, metavar="N", help="that are chosen by chance [24]")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of that choice [0]")
    parser.add_argument("--to", type=user_path, metavar="FILE", help=f"the page [{PAGE} in DEST]")
    return parser


if __name__ == "__main__":
    run_command(main)
