"""Finds out what a collection is, and lists its songs."""

import pathlib
import posixpath
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pipelines.audio.reading import SUFFIXES
from pipelines.captioned.captions import CAPTION_SUFFIXES, caption_beside
from pipelines.captioned.manifests import READERS, read_manifest
from pipelines.captioned.shards import read_shards
from pipelines.captioned.songs import CaptionedSong
from pipelines.errors import UserError, check_packages, one_line
from pipelines.songs.files_below import files_below, left_by_systems, without_suffix
from pipelines.storage import address_of, check_name, is_local, open_place, reaching

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

SHARD_SUFFIX = ".tar"
FORMS = f"a folder of audio, a manifest ({', '.join(READERS)}) or WebDataset shards ({SHARD_SUFFIX})"


def read_collection(source: str, output: str | None = None) -> list[CaptionedSong]:
    """Lists the songs of a collection, sorted by their ids. No audio is read.

    Args:
        source: address of a folder of audio, each song with its caption beside it (`song.txt` or `song.json`) or none;
            of a manifest with a suffix of `READERS`; of a WebDataset shard, of a folder of shards, or of shards with
            braces (`songs-{000..127}.tar`).
        output: address of a folder that is written of these songs; in a folder, what lies there is left out.

    Raises:
        UserError: it is none of these, holds no songs, names a file that is not there, two songs have one id, or what
            it holds cannot be read.
    """
    songs: dict[str, tuple[str, CaptionedSong]] = {}
    for where, song in _songs(source, output):
        check_name(song.id, f"{where}: the id")
        if song.id in songs:
            raise UserError(
                f"{where} and {songs[song.id][0]} have one id, {song.id!r}; give each an id of its own, or rename one"
            )
        songs[song.id] = where, song
    if not songs:
        raise UserError(f"{source} holds no songs; expected {FORMS}")
    return [songs[name][1] for name in sorted(songs)]


def _songs(source: str, output: str | None) -> Iterator[tuple[str, CaptionedSong]]:
    """The songs, each with its place for errors."""
    system, path = open_place(source)
    with reaching(source):
        is_folder, is_file = system.isdir(path), system.isfile(path)
    suffix = posixpath.splitext(path)[1].lower()
    if is_folder:
        return _songs_in_folder(source, output)
    if is_file and suffix in READERS:
        return read_manifest(source)
    if is_file and suffix == SHARD_SUFFIX:
        return read_shards(system, [path], path.rfind("/") + 1)
    if "{" in source and not is_file:
        paths = list(_expanded(source))
        return read_shards(system, paths, posixpath.commonprefix(paths).rfind("/") + 1)
    raise UserError(f"{source} is {'another kind of file' if is_file else 'not there'}; expected {FORMS}")


def _expanded(source: str) -> Iterator[str]:
    """The paths of shards that are named with braces."""
    check_packages(["braceexpand"], "shards with braces", "augment")
    import braceexpand

    try:
        addresses = list(braceexpand.braceexpand(source))
    except ValueError as error:
        raise UserError(f"{source!r} has braces that do not fit ({error}); expected songs-{{000..127}}.tar") from error
    for address in addresses:
        system, path = open_place(address)
        with reaching(address):
            if not path.lower().endswith(SHARD_SUFFIX) or not system.isfile(path):
                raise UserError(
                    f"{address}, one of {source}, is no {SHARD_SUFFIX} file, or not there; correct the braces"
                )
        yield path


def _songs_in_folder(source: str, output: str | None) -> Iterator[tuple[str, CaptionedSong]]:
    system, root = open_place(source)
    names = set(_names_below(source, output))
    audio = [name for name in names if pathlib.PurePosixPath(name).suffix.lower() in SUFFIXES]
    shards = [name for name in names if name.lower().endswith(SHARD_SUFFIX)]
    if audio and shards:
        raise UserError(
            f"{source} holds audio ({min(audio)}) and shards ({min(shards)}); give a folder that has one of them"
        )
    folder = f"{root.rstrip('/')}/"
    if shards:
        return read_shards(system, [folder + name for name in sorted(shards)], len(folder))
    return _songs_with_captions(system, folder, sorted(audio), names)


def _songs_with_captions(
    system: "AbstractFileSystem", folder: str, audio: Iterable[str], names: set[str]
) -> Iterator[tuple[str, CaptionedSong]]:
    plain = {name: without_suffix(pathlib.PurePosixPath(name)) for name in audio}
    # Suffixes may have capitals; of two files that differ in these alone the one without is taken.
    there = {f"{short}{suffix.lower()}": name for name in sorted(names) for short, suffix in [posixpath.splitext(name)]}
    candidates = {name: [f"{short}.{suffix}" for suffix in CAPTION_SUFFIXES] for name, short in plain.items()}
    beside = {name: next(filter(None, map(there.get, files)), None) for name, files in candidates.items()}
    files = sorted(set(filter(None, beside.values())))
    with reaching(address_of(system, folder)):
        # At once: elsewhere each takes its time to come.
        found = system.cat_ranges([folder + file for file in files], None, None, on_error="raise")
    contents = dict(zip(files, found, strict=True))
    for name, short in plain.items():
        file = beside[name]
        caption = (
            caption_beside(file.rpartition(".")[2].lower(), contents[file], address_of(system, folder + file))
            if file
            else ""
        )
        address = address_of(system, folder + name)
        yield address, CaptionedSong(one_line(short), caption, address, posixpath.splitext(name)[1])


def _names_below(source: str, output: str | None) -> Iterator[str]:
    """The paths in a folder and below, relative to it, of what may be a song, a caption or a shard."""
    suffixes = {*SUFFIXES, SHARD_SUFFIX, *(f".{suffix}" for suffix in CAPTION_SUFFIXES)}
    system, root = open_place(source)
    if is_local(system):
        folder = pathlib.Path(root)
        found = files_below(folder, suffixes, pathlib.Path(open_place(output)[1]) if output else None)
        yield from (file.relative_to(folder).as_posix() for file in found)
        return
    left_out = f"{address_of(*open_place(output)).rstrip('/')}/" if output else None
    with reaching(source):
        paths = system.find(root)
    for path in paths:
        name = pathlib.PurePosixPath(path[len(root.rstrip("/")) + 1 :])
        is_output = left_out and address_of(system, path).startswith(left_out)
        if name.suffix.lower() in suffixes and not left_by_systems(*name.parts) and not is_output:
            yield str(name)
