"""What a search ranges over: representations, depths and knobs. The only file that calls `hp.*`."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.errors import UserError
from sepnet.config import Config
from tuner.records import DEPTH, REPRESENTATION

# The family of each representation, and what it fixes in the family's options.
REPRESENTATIONS = {
    "waveform": ("unet_1d", {}),
    "stft": ("unet_2d", {"num_mel_bands": None}),
    "mel": ("unet_2d", {"num_mel_bands": 96}),
}


@dataclasses.dataclass(frozen=True)
class Knob:
    """A field of the config that is searched as well.

    Attributes:
        name: of the field, as in the config.
        values: those to choose from; empty where a range is given.
        low: of a range.
        high: of a range.
        log: a range is drawn from evenly in its logarithm.
    """

    name: str
    values: tuple = ()
    low: float | None = None
    high: float | None = None
    log: bool = False


@dataclasses.dataclass(frozen=True)
class Space:
    """The search space.

    Attributes:
        depths: by representation.
        knobs: fields of the config beside them.
    """

    depths: Mapping[str, Sequence[int]]
    knobs: tuple[Knob, ...] = ()

    def declare(self, hp) -> None:
        """Declares the space to KerasTuner."""
        hp.Choice(REPRESENTATION, list(self.depths))
        every = [depth for depths in self.depths.values() for depth in depths]
        hp.Int(DEPTH, min(every), max(every))
        for knob in self.knobs:
            if knob.values:
                hp.Choice(knob.name, list(knob.values))
            elif isinstance(knob.low, int):
                hp.Int(knob.name, knob.low, knob.high, sampling="log" if knob.log else "linear")
            else:
                hp.Float(knob.name, knob.low, knob.high, sampling="log" if knob.log else "linear")

    def grid(self) -> list[dict[str, Any]]:
        """Every combination, depth by depth, so that all representations have their shallow models first.

        Raises:
            UserError: a knob is a range.
        """
        ranges = [knob.name for knob in self.knobs if not knob.values]
        if ranges:
            raise UserError(
                f"--strategy grid needs values for {ranges[0]}, with commas; or take --strategy random, bayesian or "
                "hyperband, which draw from ranges"
            )
        pairs = sorted(
            ((depth, name) for name, depths in self.depths.items() for depth in depths), key=lambda pair: pair[0]
        )
        choices = list(itertools.product(*(knob.values for knob in self.knobs)))
        names = [knob.name for knob in self.knobs]
        return [
            {REPRESENTATION: name, DEPTH: depth, **dict(zip(names, values, strict=True))}
            for depth, name in pairs
            for values in choices
        ]


def parse_knob(text: str) -> Knob:
    """Reads `base_filters=12,24`, `learning_rate=1e-4:1e-2` or `learning_rate=1e-4:1e-2:log`.

    Raises:
        UserError: it is none of these.
    """
    name, equals, values = text.partition("=")
    name = name.replace("-", "_")
    try:
        if not (name and equals and values):
            raise ValueError
        if ":" not in values:
            return Knob(name, tuple(_value(value) for value in values.split(",")))
        low, high, *log = values.split(":")
        low, high = _value(low), _value(high)
        if log not in ([], ["log"]) or not low < high:
            raise ValueError
        if isinstance(low, float) or isinstance(high, float):
            low, high = float(low), float(high)
        return Knob(name, low=low, high=high, log=bool(log))
    except (ValueError, TypeError) as error:
        raise UserError(
            f"--knob is {text!r}; give values as base_filters=12,24 or a range as learning_rate=1e-4:1e-2:log"
        ) from error


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


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False, "none": None}.get(text.lower(), text)
