"""The songs that a user names on a command line: files, folders, patterns of output paths."""

import collections
import dataclasses
import pathlib
import string
from collections.abc import Sequence

from pipelines.audio import SUFFIXES
from pipelines.errors import UserError

STREAM = "-"
FIELDS = ("song", "stem", "model")


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


def named_songs(names: Sequence[str]) -> list[SongFile]:
    """Lists the songs of files, of folders and all below them, and of "-", the standard input.

    Files that are named are taken whatever they are; in folders, what has the suffix of an audio file.

    Raises:
        UserError: a folder holds no audio, or two songs have one name.
    """
    songs = []
    for name in names:
        path = pathlib.Path(name)
        if name == STREAM:
            songs.append(SongFile(None, "stdin"))
        elif path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
            if not found:
                raise UserError(f"{path} holds no audio; expected files like song.mp3, song.flac or song.wav")
            songs += [SongFile(file, _without_suffix(file.relative_to(path)).as_posix()) for file in found]
        else:
            songs.append(SongFile(path, _without_suffix(pathlib.Path(path.name)).as_posix()))
    counts = collections.Counter(song.name for song in songs)
    # Songs that differ in their suffix alone keep it.
    songs = [
        dataclasses.replace(song, name=song.name + song.path.suffix) if song.path and counts[song.name] > 1 else song
        for song in songs
    ]
    for name, count in collections.Counter(song.name for song in songs).items():
        if count > 1:
            same = " and ".join(str(song) for song in songs if song.name == name)
            raise UserError(f"{same} would be written to the same files; separate them into different folders with -o")
    return songs


def check_template(template: str, needs_stem: bool) -> None:
    """Refuses a pattern for output files that is none, or that leads out of the output folder.

    Args:
        template: path without suffix, with `{song}`, `{stem}` and `{model}` in it.
        needs_stem: every stem gets a file of its own, so their names must differ.

    Raises:
        UserError: it does.
    """
    try:
        fields = {field for _, field, _, _ in string.Formatter().parse(template) if field is not None}
    except ValueError as error:
        raise UserError(f"--template {template}: {error}; expected something like '{{song}}/{{stem}}'") from error
    if not fields <= set(FIELDS) or (needs_stem and "stem" not in fields):
        raise UserError(f"--template {template} must hold {{stem}}, and may hold {{song}} and {{model}}, nothing else")
    path = pathlib.PurePath(template)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise UserError(f"--template {template} leads out of the output folder; name that by -o")


def _without_suffix(path: pathlib.Path) -> pathlib.Path:
    return path.with_suffix("").with_suffix("") if path.name.lower().endswith(".stem.mp4") else path.with_suffix("")
