"""The files written of songs: all files of a call are named and checked before the first song is read."""

import dataclasses
import errno
import itertools
import os
import pathlib
import string
from collections.abc import Iterable, Sequence

from pipelines.errors import UserError
from pipelines.files import working_folder
from pipelines.songs.files_below import identity
from sepnet.separation.song_files import SongFile
from sepnet.separation.stem_files import STEM_MP4

TEMPLATE_FIELDS = ("song", "stem", "model")
KARAOKE = "karaoke"
RESIDUAL = "residual"
# What file systems answer to a name that they do not take.
NAME_ERRORS = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)
# Songs, and their files below the output folder.
Paths = list[tuple[SongFile, list[pathlib.Path]]]


@dataclasses.dataclass(frozen=True)
class Outputs:
    """Stems and files asked for of each song.

    Attributes:
        stems: of the model's sources.
        template: path of a file below the output folder, without suffix; `{song}`, `{stem}` and `{model}` stand in it.
        format_name: one of `sepnet.separation.stem_files.FORMAT_NAMES`.
        karaoke: the sum of all sources but the vocals, too.
        residual: what is left of the song when all that is written is taken away, too.
    """

    stems: tuple[str, ...]
    template: str = "{stem}"
    format_name: str = "wav"
    karaoke: bool = False
    residual: bool = False

    @property
    def names(self) -> list[str]:
        """All that is written, in order."""
        return [*self.stems, *[KARAOKE] * self.karaoke, *[RESIDUAL] * self.residual]

    def paths(self, song: str, model: str) -> list[pathlib.Path]:
        """Paths of the files, below the output folder."""
        stems = [""] if self.format_name == STEM_MP4 else self.names
        names = [self.template.format(song=song, stem=stem, model=model) for stem in stems]
        return [pathlib.Path(f"{name}.{self.format_name}") for name in names]


def check_template(template: str, one_file: bool) -> None:
    """Raises a `UserError` for a pattern of output files that is none, or that leads out of the output folder.

    Where all stems of a song go into one file, `{stem}` may not stand in the pattern; otherwise it must.
    """
    try:
        parts = [part[1:] for part in string.Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise UserError(f"--template {template}: {error}; expected something like '{{song}}/{{stem}}'") from error
    fields = {field for field, _, _ in parts}
    if not fields <= set(TEMPLATE_FIELDS) or any(spec or conversion for _, spec, conversion in parts):
        raise UserError(f"--template {template} may hold {{song}}, {{stem}} and {{model}} just so, and nothing else")
    if one_file and "stem" in fields:
        raise UserError(f"--template {template} holds {{stem}}, and one file takes all stems; name it by {{song}}")
    if not one_file and "stem" not in fields:
        raise UserError(f"--template {template} must hold {{stem}}, so that every stem has a file of its own")
    path = pathlib.PurePath(template)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise UserError(f"--template {template} leads out of the output folder; name that by -o")
    if not os.path.basename(template):
        raise UserError(f"--template {template} ends with a folder; expected something like '{{song}}/{{stem}}'")


def planned_files(
    songs: Sequence[SongFile], output: pathlib.Path, outputs: Outputs, model: str, skip_existing: bool = False
) -> tuple[dict[SongFile, list[pathlib.Path]], dict[SongFile, UserError]]:
    """Names all files that are going to be written, and refuses to destroy anything with them.

    The output folder need not exist. With `skip_existing`, songs of which all files are there are left out, and so are
    songs that are such files themselves.

    Returns:
        The files of every song that is to be separated, and the songs whose files the file system cannot name.

    Raises:
        UserError: two files would be one on this file system; a file is one of the songs, by whatever name; it lies
            outside of the output folder; it is a folder, or its folder is a file.
    """
    paths = [(song, outputs.paths(song.name, model)) for song in songs]
    for song, names in paths:
        for name in names:
            _check_place(song, name, output)
    left = _incomplete(paths, output) if skip_existing else paths
    failures = _rehearse(left, output)
    files = {song: [output / name for name in names] for song, names in left if song not in failures}
    check_no_input(itertools.chain.from_iterable(files.values()), songs)
    return files, failures


def _incomplete(paths: Paths, output: pathlib.Path) -> Paths:
    """Leaves out the songs of which all files are there, and songs that are such files; one file is of one song."""
    complete = {song for song, names in paths if all(os.path.isfile(output / name) for name in names)}
    owners: dict[str, SongFile] = {}
    # Those that are complete come first.
    for song, names in sorted(paths, key=lambda item: item[0] not in complete):
        for name in names:
            place = os.path.realpath(output / name)
            if place in owners:
                raise _same_files(owners[place], song, output / name)
            if song in complete:
                owners[place] = song
    return [
        (song, names)
        for song, names in paths
        if song not in complete and not (song.path and os.path.realpath(song.path) in owners)
    ]


def _same_files(first: SongFile | str, second: SongFile, place: pathlib.Path) -> UserError:
    return UserError(
        f"{first} and {second} would be written to the same files, {place} among them; put {{song}} into --template, "
        "or separate them into different folders with -o"
    )


def check_no_input(files: Iterable[pathlib.Path | int], songs: Sequence[SongFile]) -> None:
    """Raises a `UserError` if a file to be written, a path or a descriptor, is a song of the call by any name."""
    inputs = {identity(song.source): song for song in songs}
    for file in files:
        found = identity(file)
        if found and found in inputs:
            what = file if isinstance(file, pathlib.Path) else "the standard output"
            raise UserError(
                f"{what} would be replaced, and it is a song of this call, {inputs[found]}; choose another folder with "
                "-o, or other names by --template"
            )


def _check_place(song: SongFile, name: pathlib.Path, output: pathlib.Path) -> None:
    place, folder = output / name, pathlib.Path(os.path.realpath(output))
    real = pathlib.Path(os.path.realpath(place.parent))
    if name.is_absolute() or ".." in name.parts or not real.is_relative_to(folder):
        raise UserError(
            f"{song} would be written to {place}, which lies outside of {output}; choose that folder with -o, or other "
            "names by --template"
        )
    if os.path.isdir(place):
        raise UserError(f"{place} is a folder, and a stem of {song} would have its name; move it, or choose another -o")
    there = next(parent for parent in place.parents if os.path.lexists(parent) or parent == parent.parent)
    if not os.path.isdir(there):
        raise UserError(f"{there} is no folder, and stems of {song} would lie in it; move it, or choose another -o")


def _rehearse(paths: Paths, output: pathlib.Path) -> dict[SongFile, UserError]:
    """Makes empty files of all names in a folder of their own, and removes them.

    So the file system itself says which names it does not take, which are returned with their songs, and which it does
    not tell apart (it may ignore case or the form of Unicode), which is a `UserError`.
    """
    failures: dict[SongFile, UserError] = {}
    owners: dict[tuple[int, int] | None, SongFile] = {}
    with working_folder(output) as folder:
        for song, names in paths:
            for name in names:
                place = folder / name
                try:
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.touch(exist_ok=False)
                except (FileExistsError, NotADirectoryError) as error:
                    # Where one is to be a file and a folder at once, the other song is not known so easily.
                    other = owners.get(identity(place), "another song")
                    raise _same_files(other, song, output / name) from error
                except OSError as error:
                    if error.errno not in NAME_ERRORS:
                        raise
                    failures[song] = UserError(
                        f"{song}: there can be no {output / name}: {error.strerror}; give the song a shorter or "
                        "plainer name, or its files by --template"
                    )
                    break
                owners[identity(place)] = song
    return failures
