"""`python -m benchmarks.speech_data DEST`: recordings of speech and of noise under free licences.

    DEST/{speech,noise}/<package>/...           for training
    DEST/test/{speech,noise}/<package>/...      speakers and noises that are held out

They come from packages of Debian. Files keep their format and rate; G.722, which only its name tells, becomes WAV.
"""

import contextlib
import dataclasses
import fnmatch
import io
import pathlib
from collections.abc import Sequence

from benchmarks.debian import LICENCE_FILE, Package, add_packages, find_packages, read_files, read_table, write_note
from pipelines.errors import CommandParser, run_command, user_path
from pipelines.files import whole_folder
from pipelines.progress import progress_bar
from pipelines.tables import print_table

TABLE = pathlib.Path(__file__).with_suffix(".json")
G722_SUFFIX, G722_RATE = ".g722", 16_000
HEADINGS = ("files", "package", "MB", "licence", "minutes", "what")


@dataclasses.dataclass(frozen=True)
class Part:
    """The files of a package that go into one folder.

    Attributes:
        source: "speech" or "noise".
        what: in words.
        minutes: how long all files last.
        folder: that holds the files in the package, without what stands before it, which differs between releases.
        files: patterns of names below that folder; `*` stands for slashes, too.
        left_out: patterns of names among these that are not taken.
        is_held_out: True for tests.
    """

    source: str
    what: str
    minutes: float
    folder: str
    files: Sequence[str]
    left_out: Sequence[str] = ()
    is_held_out: bool = False

    def place(self, package: str) -> pathlib.PurePath:
        """Folder of its files, below the destination."""
        return pathlib.PurePath("test" if self.is_held_out else "", self.source, package)

    def name_of(self, path: str) -> str:
        """A file's name in the part's folder by that in the package; "" where it is not taken."""
        name = f"/{path}".partition(f"/{self.folder}/")[2]

        def matches(patterns: Sequence[str]) -> bool:
            return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)

        return name if matches(self.files) and not matches(self.left_out) else ""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = CommandParser(
        prog="python -m benchmarks.speech_data",
        description="Brings speech and noise under free licences from packages of Debian. Folders that are there stay "
        "as they are.",
    )
    parser.add_argument("destination", type=user_path, nargs="?", metavar="DEST", help="folder to make")
    add_packages(parser)
    parser.add_argument("--list", action="store_true", help="list packages, sizes and licences, and fetch nothing")
    options = parser.parse_args(argv)
    packages = read_table(TABLE)
    if not options.list:
        if options.destination is None:
            parser.error("DEST is missing; give a folder to make, or --list")
        bring_recordings(packages, options.destination, options.packages)
    totals = ", ".join(
        f"{sum(part.minutes for package in packages for part in parts_of(package) if part.source == source):.0f} "
        f"minutes of {source}"
        for source in ("speech", "noise")
    )
    megabytes = sum(package.megabytes for package in packages)
    print_table(HEADINGS, list_parts(packages), texts=(0, 1, 3, 5), title=f"{totals}: {megabytes:.0f} MB of packages")


def parts_of(package: Package) -> list[Part]:
    """The parts of a package that are taken."""
    return [Part(**entry) for entry in package.parts]


def list_parts(packages: Sequence[Package]) -> list[tuple[str, ...]]:
    """A row for each part, as `HEADINGS`."""
    return [
        (
            part.place("").as_posix(),
            str(package),
            f"{package.megabytes:.1f}",
            package.licence,
            f"{part.minutes:.1f}",
            part.what,
        )
        for package in packages
        for part in parts_of(package)
    ]


def bring_recordings(packages: Sequence[Package], destination: pathlib.Path, given: pathlib.Path | None) -> None:
    """Writes the parts that are missing, each whole or not at all, and a note about their licences.

    Args:
        packages: of the table.
        destination: folder of recordings.
        given: folder of packages; None brings them by apt.

    Raises:
        UserError: a package is missing, or a folder cannot be written.
    """
    missing = {}
    for package in packages:
        folders = {destination / part.place(package.name): part for part in parts_of(package)}
        missing[package] = {folder: part for folder, part in folders.items() if not folder.is_dir()}
    paths = find_packages([package for package, parts in missing.items() if parts], given)
    with progress_bar("writing recordings", total=len(paths), unit="packages") as advance:
        for package, path in paths.items():
            _write_parts(missing[package], path, package.licence_path)
            advance(1, package.name)
    text = (
        "# Licences\n\n"
        f"These recordings are from packages of Debian. `{LICENCE_FILE}` in each folder holds the package's licences, "
        "whole, and its authors."
    )
    write_note(destination / "LICENCES.md", text, HEADINGS, list_parts(packages))


def _write_parts(parts: dict[pathlib.Path, Part], path: pathlib.Path, licence_path: str) -> None:
    def wanted(name: str) -> bool:
        return name == licence_path or any(part.name_of(name) for part in parts.values())

    with contextlib.ExitStack() as stack:
        folders = {stack.enter_context(whole_folder(folder)): part for folder, part in parts.items()}
        for name, content in read_files(path, wanted):
            for folder, part in folders.items():
                if place := LICENCE_FILE if name == licence_path else part.name_of(name):
                    _write_file(folder / place, content)


def _write_file(path: pathlib.Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix != G722_SUFFIX:
        path.write_bytes(content)
        return
    import av
    import numpy as np
    import soundfile

    with av.open(io.BytesIO(content), format="g722") as container:
        frames = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
    soundfile.write(path.with_suffix(".wav"), np.concatenate(frames), G722_RATE, "PCM_16")


if __name__ == "__main__":
    run_command(main)
