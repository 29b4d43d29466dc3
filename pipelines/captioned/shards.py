"""WebDataset shards: tars in which a song and its caption have the same name."""

import collections
import pathlib
import posixpath
import tarfile
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pipelines.audio.reading import SUFFIXES
from pipelines.captioned.captions import CAPTION_SUFFIXES, caption_beside
from pipelines.captioned.songs import CaptionedSong
from pipelines.errors import UserError, one_line
from pipelines.songs.files_below import left_by_systems
from pipelines.storage import address_of, reaching

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

# Enough for the headers and the captions between two songs, and little beside a song.
BLOCK_BYTES = 1 << 16


def read_shards(
    system: "AbstractFileSystem", paths: Iterable[str], num_common: int
) -> Iterator[tuple[str, CaptionedSong]]:
    """Yields the songs of tars, each with its place, which stands before it in errors. Audio is passed over unread.

    A song's id is the path of its shard and the name in it, both without suffix: shards may count from 0 each.

    Args:
        system: fsspec's, on which they lie.
        paths: of the tars.
        num_common: characters of the paths that are no part of ids.

    Raises:
        UserError: a tar is damaged, holds links or paths that lead outside, a caption without audio, or audio twice.
    """
    for path in paths:
        address = address_of(system, path)
        with reaching(address), system.open(path, "rb", block_size=BLOCK_BYTES) as file:
            samples = _read_samples(file, address)
        for key, audio in samples.items():
            suffix, offset, num_bytes, caption = _song_in(key, audio, address)
            song_id = one_line(f"{posixpath.splitext(path[num_common:])[0]}/{key}")
            yield f"{key} in {address}", CaptionedSong(song_id, caption, address, suffix, offset, num_bytes)


def _read_samples(file, address: str) -> dict[str, dict[str, tarfile.TarInfo | bytes]]:
    """Returns the members of each sample by its name without suffixes: audio by suffix, and the bytes of captions."""
    samples = collections.defaultdict(dict)
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                path = pathlib.PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts:
                    raise UserError(f"{address} holds {member.name!r}, which leads outside; make the tar without it")
                if not (member.isfile() or member.isdir()) or member.issparse():
                    raise UserError(f"{address} holds {member.name!r}, which is no plain file; make the tar without it")
                if left_by_systems(*path.parts):
                    continue
                # As all readers of such shards have it: the suffix begins with the first dot.
                stem, _, suffix = path.name.partition(".")
                suffix = suffix.lower()
                key = str(path.with_name(stem)) if stem else ""
                if not key or member.isdir() or not (suffix in CAPTION_SUFFIXES or f".{suffix}" in SUFFIXES):
                    continue
                if suffix in samples[key]:
                    raise UserError(f"{address} holds {member.name!r} twice; make the tar with one of them")
                samples[key][suffix] = tar.extractfile(member).read() if suffix in CAPTION_SUFFIXES else member
            # What is no header ends a tar for tarfile, as its proper end does.
            file.seek(tar.offset)
            if any(file.read(tarfile.BLOCKSIZE)):
                raise tarfile.ReadError(f"no header at byte {tar.offset}")
    except tarfile.TarError as error:
        raise UserError(f"{address} is damaged, or no tar ({one_line(error)}); copy or make it once more") from error
    return samples


def _song_in(key: str, sample: dict[str, tarfile.TarInfo | bytes], address: str) -> tuple[str, int, int, str]:
    """The suffix, the place and the caption of a song."""
    audio = [suffix for suffix in sample if suffix not in CAPTION_SUFFIXES]
    if len(audio) != 1:
        what = f"the audio files {', '.join(f'{key}.{suffix}' for suffix in audio)}" if audio else "no audio"
        raise UserError(f"{address} holds {what} beside the caption of {key!r}; expected one, like {key}.flac")
    beside = next((suffix for suffix in CAPTION_SUFFIXES if suffix in sample), None)
    caption = caption_beside(beside, sample[beside], f"{key}.{beside} in {address}") if beside else ""
    return f".{audio[0]}", sample[audio[0]].offset_data, sample[audio[0]].size, caption
