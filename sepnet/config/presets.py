"""Published networks that `--preset` knows, each a config in `presets/NAME.json`."""

import importlib.resources
import json

from pipelines.errors import UserError
from sepnet.config.config import Config

PRESETS = importlib.resources.files("sepnet.config") / "presets"


def preset_names() -> list[str]:
    """Names of the presets."""
    return sorted(path.name.removesuffix(".json") for path in PRESETS.iterdir() if path.name.endswith(".json"))


def read_preset(name: str) -> Config:
    """The config of a published network.

    Raises:
        UserError: no such preset; the message lists those there are.
    """
    if name not in preset_names():
        raise UserError(f"unknown preset {name!r}; choose one of {', '.join(preset_names())}")
    values = json.loads((PRESETS / f"{name}.json").read_text())
    # For people who open the file: where the values are from, and what differs.
    del values["about"]
    return Config.from_values(values)
