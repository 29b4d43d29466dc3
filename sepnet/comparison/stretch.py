"""A stretch of a song, short enough to look at and listen to."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from sepnet.measures.baselines import BASELINES
from sepnet.models.keras_settings import load_keras

HOP_SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class Stretch:
    """A stretch of a song with its true stems.

    Attributes:
        song: name of the song.
        start_seconds: beginning of the stretch in the song.
        sample_rate: Hz.
        mixture: float32 `[num_samples, num_channels]`, full scale ±1.
        sources: true stems by name, each of the mixture's shape.
    """

    song: str
    start_seconds: float
    sample_rate: int
    mixture: np.ndarray
    sources: dict[str, np.ndarray]

    @property
    def seconds(self) -> float:
        """Length of the stretch."""
        return len(self.mixture) / self.sample_rate

    @property
    def span(self) -> str:
        """Its place in the song, such as "3.0 to 13.0 s"."""
        return f"{self.start_seconds:.1f} to {self.start_seconds + self.seconds:.1f} s"


@dataclasses.dataclass(frozen=True)
class Comparison(Stretch):
    """A stretch of a song, and what models make of it: estimates by the model's name and the source's."""

    estimates: dict[str, dict[str, np.ndarray]]

    def error_rows(self) -> list[tuple[str, ...]]:
        """Rows of a table: each model, then each baseline, and its mean squared error of all sources and of each."""
        # A model may have a baseline's name.
        answers = list(self.estimates.items())
        for name, estimate in BASELINES.items():
            answers.append((name, dict.fromkeys(self.sources, estimate(self.mixture, len(self.sources)))))
        rows = []
        for name, stems in answers:
            errors = [float(np.mean((stems[source] - true) ** 2)) for source, true in self.sources.items()]
            rows.append((name, *(f"{error:.5f}" for error in (np.mean(errors), *errors))))
        return rows


def stretch_of(
    sources: Mapping[str, np.ndarray], seconds: float, sample_rate: int, start_seconds: float | None = None
) -> slice:
    """Chooses the samples of a song that are looked at.

    Args:
        sources: its stems by name, each `[num_samples, num_channels]`.
        seconds: length; a shorter song is taken whole.
        sample_rate: Hz.
        start_seconds: beginning, before the end of the song; None takes the loudest stretch.
    """
    stems = np.stack(list(sources.values()))
    num_samples = min(max(round(seconds * sample_rate), 1), stems.shape[1])
    if start_seconds is None:
        first = loudest_stretch(stems, num_samples, max(round(HOP_SECONDS * sample_rate), 1))
    else:
        first = round(start_seconds * sample_rate)
    return slice(first, first + num_samples)


def loudest_stretch(sources: np.ndarray, num_samples: int, hop_samples: int) -> int:
    """Finds the loudest stretch of those in which the most sources are heard.

    Args:
        sources: `[num_sources, num_samples_of_song, num_channels]`.
        num_samples: length of the stretch, at most that of the song.
        hop_samples: from one place that is tried to the next.

    Returns:
        Its first sample.
    """
    # Before anything else here imports Keras.
    load_keras()
    from sepnet.measures.metrics import SILENCE_POWER

    energies = np.cumsum(np.mean(sources.astype(np.float64) ** 2, axis=2), axis=1)
    energies = np.pad(energies, ((0, 0), (1, 0)))
    starts = np.arange(0, sources.shape[1] - num_samples + 1, hop_samples)
    powers = (energies[:, starts + num_samples] - energies[:, starts]) / num_samples
    num_heard = (powers > SILENCE_POWER).sum(axis=0)
    return int(starts[np.lexsort((powers.sum(axis=0), num_heard))[-1]])
