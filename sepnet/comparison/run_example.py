"""What a finished run makes of a stretch of a validation song, to look at and listen to."""

import dataclasses
import pathlib
from collections.abc import Mapping

import numpy as np

from pipelines.errors import UserError
from sepnet.config.run_folder import Run
from sepnet.config.sections import Config

HOP_SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class Example:
    """A stretch of a song and what a model makes of it.

    Attributes:
        name: the song's.
        start_seconds: where the stretch begins.
        sample_rate: Hz.
        mixture: float32 `[num_samples, num_channels]`, full scale ±1.
        sources: true stems by name, each of the mixture's shape.
        estimates: predicted stems by the same names.
    """

    name: str
    start_seconds: float
    sample_rate: int
    mixture: np.ndarray
    sources: dict[str, np.ndarray]
    estimates: dict[str, np.ndarray]


def example(run: Run, seconds: float) -> Example:
    """Separates a stretch of the first validation song with a run's best weights: the loudest with all sources heard.

    Args:
        run: one that has finished.
        seconds: length of the stretch; a shorter song is taken whole.

    Raises:
        UserError: the run is not whole, or its songs cannot be used any more.
    """
    from sepnet.config.songs import config_tracks, data_root, read_song

    config, sample_rate, weights = run.config, run.summary["sample_rate"], run.best_weights
    if not weights.is_file():
        raise UserError(f"{weights} is not there; without the weights the run cannot be listened to")
    root, tracks = data_root(config.data), config_tracks(config.data)["valid"]
    if not tracks or tracks[0].sample_rate != sample_rate:
        raise UserError(f"{root} is not what {run} was validated on; put the same songs there")

    mixture, sources = read_song(tracks[0], config.data.parts, config.data.num_channels)
    stretch = stretch_of(sources, seconds, sample_rate)
    return Example(
        tracks[0].name,
        stretch.start / sample_rate,
        sample_rate,
        mixture[stretch],
        {name: stem[stretch] for name, stem in sources.items()},
        _separate(config, sample_rate, weights, mixture[stretch]),
    )


def stretch_of(
    sources: Mapping[str, np.ndarray], seconds: float, sample_rate: int, start_seconds: float | None = None
) -> slice:
    """Which samples of a song are looked at.

    Args:
        sources: its stems by name, each `[num_samples, num_channels]`, full scale ±1.
        seconds: how much; of a shorter song, all there is.
        sample_rate: Hz.
        start_seconds: where it begins, before the end of the song; None takes the loudest stretch.
    """
    stems = np.stack(list(sources.values()))
    num_samples = min(max(round(seconds * sample_rate), 1), stems.shape[1])
    if start_seconds is None:
        first = loudest_stretch(stems, num_samples, max(round(HOP_SECONDS * sample_rate), 1))
    else:
        first = round(start_seconds * sample_rate)
    return slice(first, first + num_samples)


def loudest_stretch(sources: np.ndarray, num_samples: int, hop_samples: int) -> int:
    """Where the loudest stretch begins in which the most sources are heard.

    Args:
        sources: `[num_sources, num_samples_of_song, num_channels]`, full scale ±1.
        num_samples: length of the stretch, at most that of the song.
        hop_samples: from one place that is tried to the next.
    """
    from sepnet.measures.metrics import SILENCE_POWER

    energies = np.cumsum(np.mean(sources.astype(np.float64) ** 2, axis=2), axis=1)
    energies = np.pad(energies, ((0, 0), (1, 0)))
    starts = np.arange(0, sources.shape[1] - num_samples + 1, hop_samples)
    powers = (energies[:, starts + num_samples] - energies[:, starts]) / num_samples
    num_heard = (powers > SILENCE_POWER).sum(axis=0)
    return int(starts[np.lexsort((powers.sum(axis=0), num_heard))[-1]])


def _separate(config: Config, sample_rate: int, weights: pathlib.Path, mixture: np.ndarray) -> dict[str, np.ndarray]:
    import keras

    from sepnet.models import build_network

    keras.config.set_dtype_policy("float32")
    network = build_network(config, sample_rate)
    try:
        network.model.load_weights(weights)
    except (OSError, ValueError) as error:
        raise UserError(f"{weights} cannot be loaded: it is damaged, or of another version of sepnet") from error
    estimates = network.model(mixture[None], training=False)
    return {name: keras.ops.convert_to_numpy(estimates[name])[0] for name in config.data.parts}
