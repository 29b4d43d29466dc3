"""The search space: representations, depths and knobs. The only file that calls `hp.*`."""

import dataclasses
import difflib
import itertools
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipelines.errors import UserError
from sepnet.config.config import Config
from sepnet.config.data import Data
from sepnet.config.training import Training
from sepnet.models import FAMILIES, family_class
from sepnet.options.checks import LARGEST
from tuner.searching.records import DEPTH, REPRESENTATION

# The family of each representation, and what it fixes in the family's options.
REPRESENTATIONS = {
    "waveform": ("unet_1d", {}),
    "stft": ("unet_2d", {"num_mel_bands": None, "features": "log", "output": "softmax_mask"}),
    "mel": ("unet_2d", {"num_mel_bands": 96, "features": "log", "output": "softmax_mask"}),
    "complex": ("unet_2d", {"num_mel_bands": None, "features": "complex", "output": "complex_mask"}),
    "hybrid": ("unet_hybrid", {}),
}
# What is searched unless families or representations are named.
DEFAULTS = ("waveform", "stft")
# A family that makes none of these is a representation of its own.
REPRESENTATIONS |= {
    family: (family, {}) for family in FAMILIES if family not in {made_by for made_by, _ in REPRESENTATIONS.values()}
}
# Fields of the config that a search sets itself, and its options for them.
CHOSEN = {
    "family": "--families",
    "depth": "--depths",
    "seed": "--seeds",
    **dict.fromkeys(("epochs", "minutes", "joules"), "--budget"),
}
# The fields of `Data` that leave alone what `val_mse` is measured on.
OF_TRAINING = ("segment_seconds", "reader")
NONE = "none"


@dataclasses.dataclass(frozen=True)
class Knob:
    """A field of the config that is searched as well.

    Attributes:
        name: of the field, as in the config.
        values: those to choose from, of one type but for None; empty where a range is given.
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
        hp.Choice(DEPTH, sorted(set(every)))
        for knob in self.knobs:
            sampling = "log" if knob.log else "linear"
            if isinstance(knob.low, int):
                hp.Int(knob.name, knob.low, knob.high, sampling=sampling)
            elif knob.low is not None:
                hp.Float(knob.name, knob.low, knob.high, sampling=sampling)
            elif not isinstance(knob.values[0], bool):
                hp.Choice(knob.name, _told(knob.values))
            elif len(knob.values) == 1:
                hp.Fixed(knob.name, knob.values[0])
            else:
                # A `Choice` makes numbers of these.
                hp.Boolean(knob.name)

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
        choices = list(itertools.product(*(_told(knob.values) for knob in self.knobs)))
        names = [knob.name for knob in self.knobs]
        return [
            {REPRESENTATION: name, DEPTH: depth, **dict(zip(names, values, strict=True))}
            for depth, name in pairs
            for values in choices
        ]


def families_of(representations: Iterable[str]) -> list[str]:
    """The model families that make representations."""
    return sorted({REPRESENTATIONS[name][0] for name in representations})


def parse_knobs(texts: Iterable[str], families: Sequence[str] = tuple(FAMILIES)) -> tuple[Knob, ...]:
    """Reads several, as `parse_knob` does.

    Raises:
        UserError: one cannot be read, or a field comes twice.
    """
    knobs = tuple(parse_knob(text, families) for text in texts)
    names = [knob.name for knob in knobs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(f"--knob {twice} comes twice; give all of its values in one, as base_filters=12,24")
    return knobs


def parse_knob(text: str, families: Sequence[str] = tuple(FAMILIES)) -> Knob:
    """Reads `base_filters=12,24`, `num_bins=none,64`, `learning_rate=1e-4:1e-2` or `learning_rate=1e-4:1e-2:log`.

    Args:
        text: of the command line.
        families: that are searched, all of which must have the field.

    Raises:
        UserError: it is none of these, a value is out of range, or the search sets this field itself.
    """
    name, equals, values = (part.strip() for part in text.partition("="))
    name = name.replace("-", "_")
    try:
        if not (name and equals and values):
            raise _NoKnob("")
        section = _section_of(name, families)
        kind = _kind(section.__dataclass_fields__[name])
        if ":" not in values:
            knob = Knob(name, tuple(_value(section, name, value.strip()) for value in values.split(",")))
            if len(set(knob.values)) < len(knob.values):
                raise _NoKnob(", which has a value twice")
            return knob
        low, high, *log = (value.strip() for value in values.split(":"))
        low, high = _value(section, name, low), _value(section, name, high)
        if kind not in (int, float) or None in (low, high):
            raise _NoKnob(f", and {name} has no range of numbers")
        if log not in ([], ["log"]):
            raise _NoKnob(f", and behind a range stands nothing but :log, not {':'.join(log)!r}")
        if not low < high:
            raise _NoKnob(f", whose range does not rise from {low} to {high}")
        if log and low <= 0:
            raise _NoKnob(f", and the logarithm of {low} is no number: begin above 0, or leave out :log")
    except _NoKnob as error:
        raise UserError(
            f"--knob is {text!r}{error}; give values as base_filters=12,24 or a range as learning_rate=1e-4:1e-2:log"
        ) from error
    return Knob(name, low=low, high=high, log=bool(log))


def with_values(base: Config, values: Mapping[str, Any], seed: int) -> Config:
    """A config with some of its fields changed, whichever section they are in.

    Args:
        base: what is changed.
        values: of a trial.
        seed: of the run.

    Raises:
        UserError: there is no such field, a value is out of range, or does not go with the others.
    """
    changed = {name: value for name, value in values.items() if name != REPRESENTATION and "/" not in name}
    # KerasTuner's Hyperband gives its trials growing numbers of epochs.
    if "tuner/epochs" in values:
        changed["epochs"] = values["tuner/epochs"]
    sections = [section.any_options() for section in map(type, vars(base).values())]
    known = {name: section for options in reversed(sections) for name, section in options.items()}
    # What KerasTuner was told.
    read = {
        name: _parsed(known[name], name, text)
        for name, text in changed.items()
        if isinstance(text, str) and name in known
    }
    return base.changed({**changed, **read, "seed": seed})


class _NoKnob(Exception):
    """Says what is wrong with a knob."""


def _section_of(name: str, families: Sequence[str]):
    """The section of the config that has a field, with a search that may change it."""
    if name in CHOSEN or name == REPRESENTATION:
        instead = CHOSEN.get(name, "--representations")
        raise UserError(f"--knob {name} is what a search sets itself; use {instead} instead")
    owners = {"data": Data, "training": Training, **{family: family_class(family) for family in families}}
    options = {key: section.any_options() for key, section in owners.items()}
    having = [key for key in owners if name in options[key]]
    lacking = [family for family in families if family not in having]
    if not set(having) - set(families) and lacking:
        known = {field for fields in options.values() for field in fields} - set(CHOSEN)
        known -= set(Data.options()) - set(OF_TRAINING)
        close = difflib.get_close_matches(name, known, n=1)
        hint = (
            f"did you mean {close[0]}?" if close and close[0] != name else "`python -m sepnet.train --help` lists them"
        )
        raise UserError(f"--knob {name} is no option of {' and '.join(lacking)}; {hint}")
    if "data" in having and name not in OF_TRAINING:
        flag = f"--{name.replace('_', '-')}"
        raise UserError(f"--knob {name} changes what val_mse is measured on; give all models one {flag} instead")
    return options[having[0]][name]


def _kind(field: dataclasses.Field) -> type | None:
    """The type of a field's single values; None of one that takes several."""
    kinds = typing.get_args(field.type) if isinstance(field.type, types.UnionType) else (field.type,)
    return next((kind for kind in kinds if kind in (bool, int, float, str)), None)


def _value(section, name: str, text: str) -> Any:
    """A value of a field, as `_parsed`, that this field takes."""
    try:
        value = _parsed(section, name, text)
        section(**{name: value})
    except ValueError as error:
        raise _NoKnob(f", and {text!r} is no value of {name}") from error
    except UserError as error:
        raise _NoKnob(f": {error}") from error
    return value


def _parsed(section, name: str, text: str) -> Any:
    """Reads the value of a field from text.

    Raises:
        ValueError: it is of another type, or no finite number.
    """
    field = section.__dataclass_fields__[name]
    kind = _kind(field)
    if text.lower() == NONE and isinstance(field.type, types.UnionType):
        return None
    if not text or kind is None:
        raise ValueError
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError
        return text.lower() == "true"
    value = kind(text)
    if kind in LARGEST and not abs(value) <= LARGEST[kind]:
        raise ValueError
    return value


def _told(values: Iterable[Any]) -> list[Any]:
    """Values as KerasTuner takes them: it knows no None, and no values of several types."""
    values = list(values)
    return [NONE if value is None else str(value) for value in values] if None in values else values
