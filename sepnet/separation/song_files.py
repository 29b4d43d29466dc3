"""The songs that a user names on a command line: files, folders, the standard input."""

import collections
import dataclasses
import os
import pathlib
from collections.abc import Sequence

from pipelines.audio.reading import SUFFIXES
from pipelines.errors import UserError
from pipelines.songs.files_below import files_below, without_suffix

STANDARD_STREAM = "-"


@dataclasses.dataclass(frozen=True)
class SongFile:
    """A song to separate.

    Attributes:
        path: the file; None for the standard input.
        name: its name, without suffix if no other song has that name, with the folders that lie between it and the
            folder that the user named.
    """

    path: pathlib.Path | None
    name: str

    def __str__(self) -> str:
        return str(self.path or "the standard input")

    @property
    def source(self) -> pathlib.Path | int:
        """The path or descriptor that `identity` takes."""
        return 0 if self.path is None else self.path


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
            found = sorted(files_below(path, SUFFIXES, output))
            if not found:
                raise UserError(f"{path} holds no audio; expected files like song.mp3, song.flac or song.wav")
            songs += [SongFile(file, file.relative_to(path).as_posix()) for file in found]
        else:
            songs.append(SongFile(path, path.name))
    short = [without_suffix(pathlib.PurePath(song.name)) for song in songs]
    counts = collections.Counter(short)
    # Songs that differ in their suffix alone keep it.
    return [
        song if counts[name] > 1 else dataclasses.replace(song, name=name)
        for song, name in zip(songs, short, strict=True)
    ]
