"""From hyperparameters to a config, and to the model that it describes."""

from collections.abc import Mapping
from typing import Any

import keras_tuner

from sepnet.config.config import Config
from tuner.searching.records import REPRESENTATION
from tuner.searching.search_space import Space, with_values


class DepthHyperModel(keras_tuner.HyperModel):
    """KerasTuner's hypermodel: a U-Net of the representation, the depth and the knobs that it draws.

    Args:
        space: what is searched.
        bases: the config of each representation, whose other fields stay.
        sample_rate: Hz.
    """

    def __init__(self, space: Space, bases: Mapping[str, Config], sample_rate: int):
        super().__init__()
        self.space = space
        self.bases = bases
        self.sample_rate = sample_rate

    def declare_hyperparameters(self, hp):
        self.space.declare(hp)

    def build(self, hp):
        """The untrained Keras model, waveform in and stems out."""
        self.space.declare(hp)
        return self.config(hp.values, seed=0).build(self.sample_rate).model

    def config(self, values: Mapping[str, Any], seed: int) -> Config:
        """The config of a run.

        Args:
            values: hyperparameters.
            seed: of the run.

        Raises:
            UserError: a knob is no field of the representation's config, or its value is out of range.
        """
        return with_values(self.bases[values[REPRESENTATION]], values, seed)
