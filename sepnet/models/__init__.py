"""The model families by name, loaded on use."""

import dataclasses
import importlib
from collections.abc import Callable

from pipelines.errors import UserError
from sepnet.config.sections import Config
from sepnet.models.keras_settings import load_keras

# Each builds a `Network`: waveform in, stems out.
MODELS = {
    "unet_1d": "sepnet.models.unet_1d:build_unet_1d",
    "unet_2d": "sepnet.models.unet_2d:build_unet_2d",
}


def builder(family: str) -> Callable:
    """The function that builds a family's models.

    Raises:
        UserError: no such family; the message lists those there are.
    """
    if family not in MODELS:
        raise UserError(f"unknown family {family!r}; choose one of {', '.join(MODELS)}")
    load_keras()
    module, function = MODELS[family].split(":")
    return getattr(importlib.import_module(module), function)


def build_network(config: Config, sample_rate: int):
    """Builds a config's `sepnet.models.network.Network`, untrained."""
    return builder(config.family)(
        sources=list(config.data.parts),
        num_channels=config.data.num_channels,
        sample_rate=sample_rate,
        **dataclasses.asdict(config.model),
    )
