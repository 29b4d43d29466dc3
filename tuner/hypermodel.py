"""From hyperparameters to a config, and to the model that it describes."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras_tuner

from pipelines.errors import UserError
from sepnet.config import Config
from tuner.records import REPRESENTATION
from tuner.search_space import Space


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
        from sepnet.models import build_network

        self.space.declare(hp)
        return build_network(self.config(hp.values, seed=0), self.sample_rate).model

    def config(self, values: Mapping[str, Any], seed: int) -> Config:
        """The config of a run.

        Args:
            values: hyperparameters.
            seed: of the run.

        Raises:
            UserError: a knob is no field of the representation's config, or its value is out of range.
        """
        return with_values(self.bases[values[REPRESENTATION]], values, seed)


def with_values(base: Config, values: Mapping[str, Any], seed: int) -> Config:
    """A config with some of its fields changed, whichever section they are in.

    Raises:
        UserError: there is no such field, or a value is out of range.
    """
    changed = {name: value for name, value in values.items() if name != REPRESENTATION and "/" not in name}
    changed = {**changed, "seed": seed}
    sections = {}
    for key, section in vars(base).items():
        names = [name for name in changed if name in section.__dataclass_fields__]
        sections[key] = dataclasses.replace(section, **{name: changed.pop(name) for name in names})
    if changed:
        raise UserError(
            f"{next(iter(changed))} is no option of {base.family}; `python -m sepnet.train --help` lists them"
        )
    # KerasTuner's Hyperband gives its trials growing numbers of epochs.
    if "tuner/epochs" in values:
        sections["training"] = dataclasses.replace(sections["training"], epochs=values["tuner/epochs"])
    return Config(**sections)
