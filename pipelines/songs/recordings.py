"""Recordings on disk: files that were never part of a song, in a folder for each source, at any depth.

    ROOT/{speech,noise}/...          for training, or in ROOT/train/
    ROOT/{valid,test}/{speech,noise}/...

Where there is no folder of a split, some files of every source are held out for it by a hash of their paths, so that a
file that is added moves no other. Of so few files that no hash is below a split's share the lowest is taken, and a file
that is added may take its place.
"""

import collections
import dataclasses
import hashlib
import itertools
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from pipelines.audio.reading import SUFFIXES
from pipelines.errors import UserError
from pipelines.songs.files_below import files_below
from pipelines.songs.layouts import (
    AUDIO_SUFFIXES,
    VALIDATION_SHARE,
    Song,
    is_hidden,
    list_folder,
    name_hash,
    songs_among,
    split_folders,
)

# What is held out of the files of a source.
SHARES = {"test": 0.1, "valid": VALIDATION_SHARE}


@dataclasses.dataclass(frozen=True)
class SourceFile(Song):
    """A recording: a song of one stem alone. Its name is its path, in the folder of all.

    Attributes:
        source: the stem that it is a file of.
        key: in [0, 1), by which it is put in order and held out.
    """

    source: str
    key: float
    noun = "recording"

    def files(self) -> dict[str, pathlib.Path]:
        return {self.source: self.path}


class NoRecordingsError(UserError):
    """A source without recordings, or with too few to hold some out."""


def find_recordings(root: pathlib.Path, stems: Sequence[str]) -> list[SourceFile]:
    """Lists the recordings under a folder, each source in the order of its keys.

    Returns:
        None at all where the folder is of another layout: where a stem has no folder of its name, or where there is a
        song with one of the stems.

    Raises:
        NoRecordingsError: the folder of a stem is empty, or holds too few files to hold some out.
    """
    if not root.is_dir():
        return []
    folders = split_folders(root)
    places = {
        (folder, entry.name): split
        for folder, split in folders.items()
        for entry in list_folder(folder)
        if entry.name in stems and entry not in folders and entry.is_dir()
    }
    if {stem for _, stem in places} != set(stems) or _has_songs(folders, stems):
        return []
    found: dict[tuple[str, str], list[SourceFile]] = collections.defaultdict(list)
    for (folder, stem), split in places.items():
        found[split, stem] += _recordings_in(folder / stem, root, split, stem)
    own = [split for split in ("train", *SHARES) if split == "train" or split in places.values()]
    missing = [split for split in SHARES if split not in own]
    for stem in stems:
        for split in own:
            if not found[split, stem]:
                default = root / stem if split == "train" else root / split / stem
                there = (folder / name for (folder, name), other in places.items() if (other, name) == (split, stem))
                raise NoRecordingsError(f"{next(there, default)} holds no recordings; put audio files of {stem} there")
        if len(found["train", stem]) <= len(missing):
            raise NoRecordingsError(
                f"{root} has too few recordings of {stem} ({len(found['train', stem])}) to hold some out; add others, "
                f"or put some into {' and '.join(str(root / split / stem) for split in missing)}"
            )
    return [
        recording
        for stem in stems
        for recording in _hold_out(found["train", stem], missing)
        + [recording for split in SHARES for recording in found[split, stem]]
    ]


def same_content(recordings: Iterable[SourceFile]) -> Iterator[tuple[SourceFile, SourceFile]]:
    """Yields recordings of two sources that are the same file, byte by byte, in pairs."""
    by_size = collections.defaultdict(list)
    for recording in recordings:
        by_size[recording.path.stat().st_size].append(recording)
    for alike in by_size.values():
        first: dict[bytes, SourceFile] = {}
        for recording in alike if len({each.source for each in alike}) > 1 else ():
            with recording.path.open("rb") as file:
                other = first.setdefault(hashlib.file_digest(file, "sha256").digest(), recording)
            if other.source != recording.source:
                yield other, recording


def _has_songs(folders: Mapping[pathlib.Path, str], stems: Sequence[str]) -> bool:
    """Says if there are songs: of another layout than folders, or folders with one of the stems, beside the sources."""
    files = [f"{stem}{suffix}" for stem, suffix in itertools.product(stems, AUDIO_SUFFIXES)]
    return any(
        type(song) is not Song or (song.name not in stems and any(os.path.exists(song.path / file) for file in files))
        for folder, split in folders.items()
        for song in songs_among([entry for entry in list_folder(folder) if entry not in folders], split)
    )


def _recordings_in(folder: pathlib.Path, root: pathlib.Path, split: str, stem: str) -> list[SourceFile]:
    found = []
    for path in files_below(folder, SUFFIXES):
        below = path.relative_to(folder)
        if not any(map(is_hidden, below.parts)):
            name = path.relative_to(root).as_posix()
            found.append(SourceFile(name, split, path, stem, name_hash(below.as_posix())))
    return sorted(found, key=lambda recording: (recording.key, recording.name))


def _hold_out(recordings: list[SourceFile], splits: Sequence[str]) -> list[SourceFile]:
    """Gives the first of the recordings, by their keys, to other splits: one or more to each, and one stays."""
    first, most, bound = 0, len(recordings) - len(splits), 0.0
    for number, split in enumerate(splits):
        bound += SHARES[split]
        chosen = [recording for recording in recordings[first : most + number] if recording.key < bound]
        last = first + max(len(chosen), 1)
        recordings[first:last] = [dataclasses.replace(each, split=split) for each in recordings[first:last]]
        first = last
    return recordings
