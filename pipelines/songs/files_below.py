"""Lists the files in a folder and all below it, and names songs by their files."""

import os
import pathlib
import stat
from collections.abc import Collection, Iterator

from pipelines.audio.reading import SUFFIXES, say
from pipelines.files import NEW, UNFINISHED, WORKING
from pipelines.songs.layouts import STEM_SUFFIX

# What other systems and this one leave in folders: macOS beside files ("._song.wav") and in archives, netatalk.
SYSTEM_PREFIXES = ("._", UNFINISHED, NEW, WORKING)
SYSTEM_FOLDERS = ("__MACOSX", ".AppleDouble")


def left_by_systems(*names: str) -> bool:
    """Says if one of the names of a path's parts is that of a file or a folder that is no user's."""
    return any(name.startswith(SYSTEM_PREFIXES) or name in SYSTEM_FOLDERS for name in names)


def identity(file: pathlib.Path | int) -> tuple[int, int] | None:
    """Device and inode of a file by its path or descriptor, the same under all of its names.

    Returns:
        None if there is no such file, or it is no file that could be replaced: a terminal, a connection.
    """
    try:
        status = os.stat(file)
    except OSError:
        return None
    is_other = stat.S_ISCHR(status.st_mode) or stat.S_ISSOCK(status.st_mode)
    return None if is_other else (status.st_dev, status.st_ino)


def files_below(
    folder: pathlib.Path, suffixes: Collection[str], output: pathlib.Path | None = None
) -> Iterator[pathlib.Path]:
    """Yields the files of some suffixes in a folder and below, each folder once, however many links lead to it.

    What systems leave there is no file of the user's. A folder for output below is left out.
    """
    seen = {identity(output)} - {identity(folder)} if output else set()
    # Links come last: a song's name says where it lies, not what leads there.
    waiting = [folder]
    for top in waiting:
        for parent, folders, files in os.walk(top, onerror=_note_unreadable):
            place = pathlib.Path(parent)
            if identity(place) in seen:
                folders.clear()
                continue
            seen.add(identity(place))
            folders[:] = [name for name in folders if not left_by_systems(name)]
            waiting += [place / name for name in sorted(folders) if (place / name).is_symlink()]
            for name in files:
                path = place / name
                if path.suffix.lower() in suffixes and not left_by_systems(name) and os.path.isfile(path):
                    yield path


def _note_unreadable(error: OSError) -> None:
    say(f"cannot read the folder {error.filename}: {error.strerror}; it is left out")


def without_suffix(path: pathlib.PurePath) -> str:
    """A song's name: "01. Intro" has no suffix, though a dot."""
    name = path.as_posix()
    suffix = STEM_SUFFIX if name.lower().endswith(STEM_SUFFIX) else path.suffix
    short = name[: len(name) - len(suffix)]
    # What is left must be a name, and none of the folders "." and "..".
    is_name = path.name[: len(path.name) - len(suffix)].strip(".")
    return short if suffix.lower() in (*SUFFIXES, STEM_SUFFIX) and is_name else name
