"""`python -m benchmarks.real_songs DEST`: eight songs that people played, guitars apart, in MUSDB18-HQ's layout.

    DEST/{train,valid,test}/<Artist - Title>/{mixture,guitar,accompaniment}.wav

They come from Debian's packages of songs for Frets on Fire. The files are 16-bit stereo, and the mixture is the exact
sum of the two sources.
"""

import io
import pathlib
from collections.abc import Sequence

import numpy as np

from benchmarks.debian import LICENCE_FILE, Package, add_packages, find_packages, read_files, read_table, write_note
from pipelines.errors import CommandParser, run_command, user_path
from pipelines.files import whole_folder
from pipelines.progress import progress_bar
from pipelines.tables import print_table

TABLE = pathlib.Path(__file__).with_suffix(".json")
SOURCES = {"guitar": "guitar.ogg", "accompaniment": "song.ogg"}
# What the loudest sample becomes where a sum exceeds full scale: rounding adds one to a sum of two at most.
PEAK = 32766


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = CommandParser(
        prog="python -m benchmarks.real_songs",
        description="Brings eight songs with guitars apart (58 MB, 27 minutes at 44.1 kHz) from packages of Debian. "
        "Songs that are there stay as they are.",
    )
    parser.add_argument("destination", type=user_path, metavar="DEST", help="folder of songs to make")
    add_packages(parser)
    options = parser.parse_args(argv)
    packages = read_table(TABLE)
    bring_songs(packages, options.destination, options.packages)
    folders = [folder for package in packages for folder in song_folders(package, options.destination)]
    print_table(
        ("song", "split", "minutes", "peak", "guitar's energy"),
        [(folder.name, folder.parent.name, *describe(folder)) for folder in folders],
        texts=(0, 1),
    )


def song_folders(package: Package, destination: pathlib.Path) -> dict[pathlib.Path, str]:
    """Returns the place of every song of a package, each with its folder in the package."""
    return {
        destination / split / f"{package.parts['artist']} - {title}": f"{package.parts['folder']}/{name}"
        for split, songs in package.parts["songs"].items()
        for title, name in songs.items()
    }


def bring_songs(packages: Sequence[Package], destination: pathlib.Path, given: pathlib.Path | None) -> None:
    """Writes the songs that are missing, each whole or not at all, and a note about where they come from.

    Args:
        packages: of the table.
        destination: folder of songs.
        given: folder of packages; None brings them by apt.

    Raises:
        UserError: a package is missing, or a folder cannot be written.
    """
    missing = {
        package: {folder: name for folder, name in song_folders(package, destination).items() if not folder.is_dir()}
        for package in packages
    }
    paths = find_packages([package for package, songs in missing.items() if songs], given)
    total = sum(map(len, missing.values()))
    with progress_bar("writing songs", total=total, unit="songs") as advance:
        for package, path in paths.items():
            wanted = {f"{name}/{file}" for name in missing[package].values() for file in SOURCES.values()}
            files = dict(read_files(path, (wanted | {package.licence_path}).__contains__))
            for folder, name in missing[package].items():
                sources = {source: files[f"{name}/{file}"] for source, file in SOURCES.items()}
                _write_song(folder, sources, files[package.licence_path])
                advance(1, folder.name)
    rows = [
        (folder.relative_to(destination).as_posix(), str(package), f"`{name}`", package.licence)
        for package in packages
        for folder, name in song_folders(package, destination).items()
    ]
    text = (
        "# Songs with guitars apart\n\n"
        "From Debian's packages of songs for Frets on Fire: `guitar.ogg` is the guitar, `song.ogg` all else. The "
        "mixture is their sum; all three are scaled alike where it exceeds full scale. Each song's "
        f"`{LICENCE_FILE}` holds its licence, and its authors."
    )
    write_note(destination / "README.md", text, ("song", "package", "folder in it", "licence"), rows)


def _write_song(folder: pathlib.Path, files: dict[str, bytes], licence: bytes) -> None:
    import soundfile

    stems = {}
    for source, content in files.items():
        stems[source], sample_rate = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
    num_samples = max(map(len, stems.values()))
    stems = {source: np.pad(stem, ((0, num_samples - len(stem)), (0, 0))) for source, stem in stems.items()}
    loudest = max(float(np.abs(sound).max()) for sound in (sum(stems.values()), *stems.values()))
    gain = min(32768, PEAK / loudest)
    stems = {source: np.round(stem * gain).astype(np.int16) for source, stem in stems.items()}
    with whole_folder(folder) as temporary:
        for name, samples in {"mixture": sum(stems.values()), **stems}.items():
            soundfile.write(temporary / f"{name}.wav", samples, sample_rate, "PCM_16")
        (temporary / LICENCE_FILE).write_bytes(licence)


def describe(folder: pathlib.Path) -> tuple[str, str, str]:
    """A song's minutes, its mixture's peak, and the guitar's share of the sources' energy."""
    import soundfile

    mixture, sample_rate = soundfile.read(folder / "mixture.wav", dtype="float32")
    energies = [float(np.square(soundfile.read(folder / f"{name}.wav", dtype="float32")[0]).sum()) for name in SOURCES]
    minutes, peak = len(mixture) / sample_rate / 60, np.abs(mixture).max()
    return f"{minutes:.1f}", f"{peak:.3f}", f"{energies[0] / sum(energies):.0%}"


if __name__ == "__main__":
    run_command(main)
