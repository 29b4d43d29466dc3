"""A stretch of a validation song, separated by a finished run, to look at and listen to."""

import dataclasses

import numpy as np

from pipelines.errors import UserError
from sepnet.comparison.stretch import Stretch, stretch_of
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
    import keras

    config, sample_rate = run.config, run.summary["sample_rate"]
    root, tracks = data_root(config.data), config_tracks(config.data)["valid"]
    if not tracks or tracks[0].sample_rate != sample_rate:
        raise UserError(f"{root} is not what {run} was validated on; put the same songs there")

    mixture, sources = read_song(tracks[0], config.data.parts, config.data.num_channels)
    stretch = stretch_of(sources, seconds, sample_rate)
    with precision("float32"):
        network = config.build(sample_rate)
    run.load_weights(network.model)
    estimates = network.model(mixture[None, stretch], training=False)
    return Example(
        tracks[0].name,
        stretch.start / sample_rate,
        sample_rate,
        mixture[stretch],
        {name: stem[stretch] for name, stem in sources.items()},
        {name: keras.ops.convert_to_numpy(estimates[name])[0] for name in sources},
    )
