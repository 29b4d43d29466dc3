"""Reads what older versions wrote into `config.json`, `search.json` and SavedModels."""

from typing import Any

from sepnet.options.fields import NAME, Section

OLD_BODY = "form"
# Blocks had options that the other bodies lack, and left them at their defaults.
BLOCKS_ONLY = ("convolutions", "downsampling", "upsampling", "upsampling_kernel_size")
OLD_NAMES = {"magnitudes": "features"}
OLD_PADDING, PADDING = "context", "valid"
# What networks on spectra did before there was an option for it.
OLD_SPECTRA = {"subbands": 1}
# How runs were trained before there were options for it.
OLD_TRAINING = {"optimizer": "adamw", "ema": 0.0, "speed_semitones": 0.0}


def modern_model(family: type[Section], values: Any) -> Any:
    """The values of a model with those of its body among them, as they were written before bodies had sections.

    Args:
        family: class of the model.
        values: of the model; returned as they are where they are no object.
    """
    if not isinstance(values, dict):
        return values
    values = {OLD_NAMES.get(name, name): value for name, value in values.items()}
    if "frame_length" in values:
        values = OLD_SPECTRA | values
    if "body" in values or not family.chosen_fields():
        return values
    own = {name: value for name, value in values.items() if name in family.options()}
    body = {name: value for name, value in values.items() if name not in own and name != OLD_BODY}
    if not body and OLD_BODY not in values:
        return own
    name = values.get(OLD_BODY, "blocks")
    if name != "blocks":
        body = {name: value for name, value in body.items() if name not in BLOCKS_ONLY}
    if body.get("padding") == OLD_PADDING:
        body["padding"] = PADDING
    return {**own, "body": {NAME: name, **body}}


def modern_training(values: Any) -> Any:
    """The values of training with what an older version did; those that are not whole are returned as they are."""
    is_whole = isinstance(values, dict) and {"loss", "learning_rate", "seed"} <= values.keys()
    return OLD_TRAINING | values if is_whole else values
