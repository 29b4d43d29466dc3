"""The songs that a user names on a command line: files, folders, the standard input."""

import collections
import dataclasses
import os
import pathlib
import stat
from collections.abc import Iterator, Sequence

from pipelines.audio.reading import SUFFIXES, say
from pipelines.errors import UserError
from pipelines.files import NEW, WORKING
from pipelines.songs.layouts import STEM_SUFFIX

STANDARD_STREAM = "-"
# What other systems and this one leave in folders: macOS beside files ("._song.wav") and in archives, netatalk.
SYSTEM_PREFIXES = ("._", NEW, WORKING)
SYSTEM_FOLDERS = ("__MACOSX", ".AppleDouble")


@dataclasses.dataclass(frozen=True)
class SongFile:
    """A song to separate.

    Attributes:
        path: the file; None for the standard input.
        name: its name without suffix, with the folders that lie between it and the folder that the user named.
    """

    path: pathlib.Path | None
    name: str

    def __str__(self) -> str:
        return str(self.path or "the standard input")

    @property
    def source(self) -> pathlib.Path | int:
        """The path or descriptor that `identity` takes."""
        return 0 if self.path is None else self.path


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


def named_songs(names: Sequence[str], output: pathlib.Path | None = None) -> list[SongFile]:
    """Lists the songs of files, of folders and all below them, and of "-", the standard input.

    Files that are named are taken whatever they are; in folders, what has the suffix of an audio file and is not what
    systems leave there. Links to folders are followed. An output folder below one that is named is left out.

    Raises:
        UserError: a folder holds no audio.
    """
    songs = []
    for name in names:
        path = pathlib.Path(name)
        if name == STANDARD_STREAM:
            songs.append(SongFile(None, "stdin"))
        elif os.path.isdir(path):
            found = sorted(_songs_below(path, output))
            if not found:
                raise UserError(f"{path} holds no audio; expected files like song.mp3, song.flac or song.wav")
            songs += [SongFile(file, _without_suffix(file.relative_to(path))) for file in found]
        else:
            songs.append(SongFile(path, _without_suffix(pathlib.Path(path.name))))
    counts = collections.Counter(song.name for song in songs)
    # Songs that differ in their suffix alone keep it.
    return [
        dataclasses.replace(song, name=song.name + song.path.suffix) if song.path and counts[song.name] > 1 else song
        for song in songs
    ]


def _songs_below(folder: pathlib.Path, output: pathlib.Path | None) -> Iterator[pathlib.Path]:
    """The songs in a folder and below, each folder once, however many links lead to it."""
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
            folders[:] = [
                name for name in folders if not name.startswith(SYSTEM_PREFIXES) and name not in SYSTEM_FOLDERS
            ]
            waiting += [place / name for name in sorted(folders) if (place / name).is_symlink()]
            for name in files:
                path = place / name
                if path.suffix.lower() in SUFFIXES and not name.startswith(SYSTEM_PREFIXES) and os.path.isfile(path):
                    yield path


def _note_unreadable(error: OSError) -> None:
    say(f"cannot read the folder {error.filename}: {error.strerror}; it is left out")


def _without_suffix(path: pathlib.Path) -> str:
    """A song's name: "01. Intro" has no suffix, though a dot."""
    name = path.as_posix()
    suffix = STEM_SUFFIX if name.lower().endswith(STEM_SUFFIX) else path.suffix
    short = name[: len(name) - len(suffix)]
    # What is left must be a name, and none of the folders "." and "..".
    is_name = path.name[: len(path.name) - len(suffix)].strip(".")
    return short if suffix.lower() in (*SUFFIXES, STEM_SUFFIX) and is_name else name
