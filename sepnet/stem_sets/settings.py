"""The settings of a stem set, kept with it so that only the same run goes on with it."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable

from pipelines.captioned.songs import CaptionedSong


@dataclasses.dataclass(frozen=True)
class StemSetSettings:
    """Everything that the clips of a set depend on.

    Attributes:
        model: its name.
        model_version: its version.
        model_sha256: of its files.
        recipe_sha256: of the recipe.
        hook: the user's function that makes captions, as `module:function`; empty for none.
        clip_seconds: length of a clip.
        audio_format: "flac" or "opus".
        layout: "webdataset", or "folder" for plain files.
        num_songs: of the collection, those that fail too.
        songs_sha256: what `songs_digest` returns for them.
        songs_per_shard: how many songs in the order of the collection share a shard.
    """

    model: str
    model_version: str
    model_sha256: str
    recipe_sha256: str
    hook: str
    clip_seconds: float
    audio_format: str
    layout: str
    num_songs: int
    songs_sha256: str
    songs_per_shard: int

    @property
    def num_shards(self) -> int:
        """The number of shards; they count from 0."""
        return -(-self.num_songs // self.songs_per_shard)


def songs_digest(songs: Iterable[CaptionedSong]) -> str:
    """Returns the SHA-256 of the songs' ids and captions in their order, hexadecimal."""
    digest = hashlib.sha256()
    for song in songs:
        digest.update(json.dumps([song.id, song.caption]).encode())
    return digest.hexdigest()
