"""What several models make of a stretch of one song, beside its true stems."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from pipelines.errors import UserError
from pipelines.songs.layouts import Song, Track, read_track
from sepnet.comparison.run_example import stretch_of
from sepnet.config.data import Data

BLOCK_SECONDS = 5


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A stretch of a song, and what models make of it.

    Attributes:
        song: its name.
        start_seconds: where the stretch begins.
        sample_rate: Hz.
        mixture: float32 `[num_samples, num_channels]`, full scale ±1.
        sources: true stems by name, each of the mixture's shape.
        estimates: predicted stems by the model's name and the source's.
    """

    song: str
    start_seconds: float
    sample_rate: int
    mixture: np.ndarray
    sources: dict[str, np.ndarray]
    estimates: dict[str, dict[str, np.ndarray]]

    @property
    def seconds(self) -> float:
        """Length of the stretch."""
        return len(self.mixture) / self.sample_rate

    @property
    def stretch(self) -> str:
        """Where it lies in the song, in words."""
        return f"{self.start_seconds:.1f} to {self.start_seconds + self.seconds:.1f} s"

    def errors(self) -> dict[str, dict[str, float]]:
        """Mean squared error of every source, by model, then for silence and for an equal share of the mixture."""
        share = self.mixture / len(self.sources)
        answers = {
            **self.estimates,
            "silence": dict.fromkeys(self.sources, np.zeros_like(share)),
            "mixture/num_sources": dict.fromkeys(self.sources, share),
        }
        return {
            name: {source: float(np.mean((stems[source] - true) ** 2)) for source, true in self.sources.items()}
            for name, stems in answers.items()
        }


def find_track(song: str, data: Data) -> Track:
    """Finds a song by the path of its folder, or by its name in a data folder.

    Args:
        song: path or name.
        data: where to look for names, the stems that the song must hold, and how songs are read there.

    Raises:
        UserError: there is no such song, or it lacks a stem.
    """
    from pipelines.audio import reading
    from sepnet.config.songs import config_tracks, data_root

    folder = pathlib.Path(song).expanduser()
    if data.data is None and folder.is_dir():
        if data.sample_rate is not None:
            raise UserError(f"--sample-rate is for songs of --data, and {song} is read as it is; leave it out")
        return read_track(Song(folder.resolve().name, "test", folder), data.stems, reading.measure)
    root = data_root(data)
    tracks = [track for split in config_tracks(data).values() for track in split]
    found = [track for track in tracks if track.name == song]
    if not found:
        names = ", ".join(repr(track.name) for track in tracks[:3])
        raise UserError(
            f"no folder {song}, and no song of that name under {root}, which has {names}, ...; "
            "give --song a folder of stems, or --data and a name"
        )
    return found[-1]


def compare_on_song(
    models: Mapping[str, pathlib.Path],
    parts: Mapping[str, Sequence[str]],
    track: Track,
    *,
    seconds: float,
    start_seconds: float | None = None,
) -> Comparison:
    """Separates a song with each model, as far as the end of the stretch.

    Args:
        models: folders of SavedModels, by name.
        parts: the stems whose sum each source is.
        track: a song that holds every stem.
        seconds: length of the stretch; a shorter song is taken whole.
        start_seconds: where it begins; None takes the loudest stretch with all sources heard.

    Raises:
        UserError: a model or the song cannot be used, or the song ends before the stretch begins.
    """
    from sepnet.config.songs import read_song

    rate = track.sample_rate
    mixture, sources = read_song(track, parts)
    if start_seconds is not None and round(start_seconds * rate) >= len(mixture):
        raise UserError(f"--start is {start_seconds:g} s, and {track.name!r} ends after {len(mixture) / rate:.1f} s")
    stretch = stretch_of(sources, seconds, rate, start_seconds)
    separate = functools.partial(_separate, mixture=mixture[: stretch.stop], sample_rate=rate)
    estimates = {
        name: {source: stem[stretch] for source, stem in separate(name, model).items()}
        for name, model in models.items()
    }
    return Comparison(
        track.name,
        stretch.start / rate,
        rate,
        mixture[stretch],
        {name: stem[stretch] for name, stem in sources.items()},
        estimates,
    )


def _separate(name: str, model: pathlib.Path, *, mixture: np.ndarray, sample_rate: int) -> dict[str, np.ndarray]:
    from pipelines.progress import progress_bar
    from sepnet.separation.separator import Separator

    separator = Separator(model)
    size = BLOCK_SECONDS * sample_rate
    with progress_bar(name, total=len(mixture) / sample_rate, unit="s of audio") as advance:

        def blocks():
            for first in range(0, len(mixture), size):
                block = mixture[first : first + size]
                yield block
                advance(len(block) / sample_rate)

        with contextlib.closing(separator.separate_blocks(blocks(), sample_rate, mixture.shape[1])) as separated:
            stems = list(separated)
    return {source: np.concatenate([block[source] for block in stems]) for source in separator.sources}
