"""The songs that a config asks for, and whole songs in memory."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from pipelines.audio.channels import match_channels
from pipelines.copies.tracks import load_tracks
from pipelines.errors import UserError
from pipelines.songs.layouts import MIXTURE, Track
from sepnet.config.data import Data


def data_root(data: Data) -> pathlib.Path:
    """The folder of songs: the config's, or that of the demo songs, which are made on first use."""
    from pipelines.demo_songs.synthesis import demo_songs_path

    return demo_songs_path() if data.data is None else pathlib.Path(os.path.expanduser(data.data))


def config_tracks(data: Data) -> dict[str, list[Track]]:
    """The tracks of every split; of recordings, those to train on are no songs.

    Raises:
        UserError: as `pipelines.copies.tracks.load_tracks`: no songs, or one that cannot be used.
    """
    return load_tracks(
        data_root(data),
        stems=data.stems,
        sample_rate=data.sample_rate,
        skip_bad=data.skip_bad,
        num_channels=data.num_channels,
        snr_db=data.snr_range,
        num_first=len(next(iter(data.parts.values()))),
    )


def sample_rate_of(data: Data) -> int:
    """The rate of the songs that a config asks for, in Hz.

    Raises:
        UserError: as `config_tracks`.
    """
    return next(track for split in config_tracks(data).values() for track in split).sample_rate


def data_of(
    parts: Mapping[str, Sequence[str]], others: Sequence[str], num_channels: int, data: Data
) -> tuple[Data, dict[str, tuple[str, ...]]]:
    """The config of the songs that models are judged on: by default with the stems that the models were trained on.

    Args:
        parts: the stems whose sum each source of the models is.
        others: stems of songs that no source of the models holds; mixtures are the sum of all.
        num_channels: that the models take; mixtures of recordings are made with 1 or 2.
        data: what was asked for; its sources are those of a `Data` where nothing was.

    Returns:
        A config that has the sources of the models, and of songs that hold more one or more others; and the stems of
        the songs whose sum each source of the models is.

    Raises:
        UserError: `data` lacks sources of the models.
    """
    sources = data.sources
    if sources == Data().sources:
        sources = tuple(f"{name}={'+'.join(stems)}" for name, stems in parts.items())
    elif not set(data.parts) >= set(parts):
        raise UserError(
            f"--sources names {', '.join(data.parts)}, and the models give {', '.join(parts)}; name these, and behind "
            "each the stems of the songs that make it up, as in vocals=lead+choir"
        )
    if len(sources) == len(parts):
        sources += tuple(others)
    data = dataclasses.replace(data, sources=sources, num_channels=min(num_channels, 2))
    return data, {source: stems for source, stems in data.parts.items() if source in parts}


def read_song(
    track: Track, parts: Mapping[str, Sequence[str]], num_channels: int | None = None
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The mixture and the sources of a song, each float32 `[num_samples, num_channels]`, full scale ±1.

    Args:
        track: a song that holds every stem; where it has no mixture, that is the sum of all its stems.
        parts: the stems whose sum each source is.
        num_channels: 1 or 2, as training reads songs; None takes as many as the song has.
    """
    from pipelines.audio.reading import read_blocks

    wanted = num_channels or max(track.channel_counts)
    stems = {
        stem: match_channels(np.concatenate(list(read_blocks(path))), wanted) for stem, path in track.files.items()
    }
    sources = {name: sum(stems[stem] for stem in group) for name, group in parts.items()}
    return stems[MIXTURE] if MIXTURE in stems else sum(stems.values()), sources
