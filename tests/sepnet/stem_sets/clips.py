"""Clips that are made up, and programs that write them in processes of their own."""

import io
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow.parquet

from sepnet.stem_sets.settings import StemSetSettings
from sepnet.stem_sets.stem_set import StemSet
from tests.conftest import REPOSITORY

SONGS_PER_SHARD, CLIPS_PER_SONG = 2, 3
CAPTION = 'She said "go", and\nwent; 🎻 naïve'


def settings(**changes) -> StemSetSettings:
    return StemSetSettings(
        **{
            "model": "umbrella",
            "model_version": "3",
            "model_sha256": "ab" * 32,
            "recipe_sha256": "cd" * 32,
            "hook": "",
            "clip_seconds": 0.25,
            "audio_format": "flac",
            "layout": "webdataset",
            "num_songs": 5,
            "songs_sha256": "ef" * 32,
            "songs_per_shard": SONGS_PER_SHARD,
            **changes,
        }
    )


def row(song: int, clip: int, **changes) -> dict[str, Any]:
    """The columns of a clip; what may be missing is there in a later shard alone."""
    is_late = song >= SONGS_PER_SHARD
    return {
        "id": f"album/song {song}/{clip}. stem",
        "song_id": f"album/song {song}",
        "other_song_id": "album/other" if is_late else None,
        "start_seconds": clip * 0.25,
        "other_start_seconds": 1.5 if is_late else None,
        "duration_seconds": 0.25,
        "sample_rate": 44_100,
        "kind": "remix" if is_late else "stem",
        "sources": ["vocals", "drums"],
        "other_sources": ["bass"] if is_late else None,
        "song_caption": CAPTION if is_late else "",
        "caption": f"{CAPTION}, vocals",
        "loudness_lufs": -23.5 if is_late else None,
        "silence": 0,
        "bleed": 0.125 if is_late else None,
        "snr_before_db": None if is_late else clip - 3.0,
        "snr_after_db": None if is_late else 8.5,
        "clipping": 0.0,
        "gain_db": -1,
        "passes": not is_late,
        "reasons": ["bleed"] if is_late else [],
        "tempo_bpm": 120.5 if is_late else None,
        "tempo_confidence": 0.5 if is_late else None,
        "key": "A minor" if is_late else None,
        "key_confidence": 0.5 if is_late else None,
        "model": "umbrella",
        "model_version": "3",
        "val_mse": 0.001 if is_late else None,
        "separation_seconds": 0.5,
        "separation_joules": 2.0 if is_late else None,
        **changes,
    }


def samples(song: int, clip: int, num_channels: int = 2) -> np.ndarray:
    noise = np.random.default_rng([song, clip]).normal(0, 0.1, (11_025, num_channels)).astype(np.float32)
    # Louder in its middle, so that what is lost of the beginning or the end shows.
    return noise * np.hanning(len(noise))[:, None].astype(np.float32)


def clips(shard: int, end: int | None = None, **changes) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """The clips of a shard; when so many were taken, the process kills itself."""
    songs = range(shard * SONGS_PER_SHARD, min((shard + 1) * SONGS_PER_SHARD, 5))
    pairs = [(song, clip) for song in songs for clip in range(CLIPS_PER_SONG)]
    for taken, (song, clip) in enumerate(pairs):
        if taken == end:
            signal.raise_signal(signal.SIGKILL)
        yield row(song, clip, **changes), samples(song, clip)
    if end == len(pairs):
        signal.raise_signal(signal.SIGKILL)


def failures(shard: int) -> list[dict[str, Any]]:
    return [{"song_id": f"album/bad {shard}", "reason": "no audio in it", "num_clips": shard}]


def write(stem_set: StemSet, **changes) -> StemSet:
    for shard in stem_set.shards_to_do():
        stem_set.write_shard(shard, clips(shard, **changes), failures(shard))
    stem_set.finish()
    return stem_set


def rows_of(parquet: bytes) -> list[dict[str, Any]]:
    # Other threads would let go of the bytes at a time of their own.
    return pyarrow.parquet.ParquetFile(io.BytesIO(parquet)).read(use_threads=False).to_pylist()


def run_python(program: str, *arguments: str) -> subprocess.CompletedProcess:
    """Runs a program that begins with the names of this file."""
    return subprocess.run(_python(program, *arguments), cwd=REPOSITORY, capture_output=True, encoding="utf-8")


def start_python(program: str, *arguments: str) -> subprocess.Popen:
    """Starts such a program; its output and what it is told go through pipes."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "encoding": "utf-8"}
    return subprocess.Popen(_python(program, *arguments), cwd=REPOSITORY, **pipes)


def _python(program: str, *arguments: str) -> list[str]:
    imports = (
        "import os, signal, sys\nfrom sepnet.stem_sets.destination import Destination\n"
        "from sepnet.stem_sets.stem_set import StemSet\n"
        "from tests.sepnet.stem_sets.clips import clips, failures, settings, write\n"
    )
    return [sys.executable, "-c", imports + program, *arguments]


def tree(folder: pathlib.Path) -> dict[str, bytes]:
    """The contents of all files below a folder, hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
    }
