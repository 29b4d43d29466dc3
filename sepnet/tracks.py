"""The songs that a config asks for."""

import pathlib

from pipelines.songs import Track
from pipelines.tracks import load_tracks
from sepnet.config import Data


def data_root(data: Data) -> pathlib.Path:
    """The folder of songs: the config's, or that of the demo songs, which are made on first use."""
    from pipelines.demo_songs.synthesis import demo_songs_path

    return pathlib.Path(data.data) if data.data else demo_songs_path()


def config_tracks(data: Data) -> dict[str, list[Track]]:
    """The tracks of every split; errors as of `pipelines.tracks.load_tracks`."""
    return load_tracks(data_root(data), sources=data.stems, sample_rate=data.sample_rate, skip_bad=data.skip_bad)
