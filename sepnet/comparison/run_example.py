"""A stretch of a validation song, separated by a finished run, to look at and listen to."""

import dataclasses
import pathlib

import numpy as np

from pipelines.errors import UserError
from sepnet.comparison.stretch import Stretch, stretch_of
from sepnet.config.config import Config
from sepnet.config.run_folder import Run
from sepnet.config.songs import config_tracks, data_root, read_song
from sepnet.models.keras_settings import precision


@dataclasses.dataclass(frozen=True)
class Example(Stretch):
    """A stretch of a song and what a model makes of it: estimates by the names of the sources."""

    estimates: dict[str, np.ndarray]


def example_of_run(run: Run, seconds: float) -> Example:
    """Separates a stretch of the first validation song with a run's best weights: the loudest with all sources heard.

    A song that is shorter is taken whole.

    Raises:
        UserError: the run is not whole, or its songs cannot be used any more.
    """
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


def _separate(config: Config, sample_rate: int, weights: pathlib.Path, mixture: np.ndarray) -> dict[str, np.ndarray]:
    import keras

    with precision("float32"):
        network = config.build(sample_rate)
    try:
        network.model.load_weights(weights)
    except (OSError, ValueError) as error:
        raise UserError(f"{weights} cannot be loaded: it is damaged, or of another version of sepnet") from error
    estimates = network.model(mixture[None], training=False)
    return {name: keras.ops.convert_to_numpy(estimates[name])[0] for name in config.data.parts}
