"""Flags of a whole config, and of single sections, on a command line."""

import argparse
import pathlib
from collections.abc import Sequence

from pipelines.errors import UserError, user_path
from sepnet.config.config import Config
from sepnet.config.data import Data
from sepnet.config.presets import preset_names, read_preset
from sepnet.config.training import Training
from sepnet.models import DEFAULT_FAMILY, FAMILIES, family_class
from sepnet.options.checks import flag
from sepnet.options.fields import Section
from sepnet.options.flags import add_section_flags


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Gives a parser one flag for each option of a `Config`, and `--preset`."""
    presets = f"begin with a published network, which other flags then change: {', '.join(preset_names())}"
    parser.add_argument("--preset", default=argparse.SUPPRESS, metavar="NAME", help=presets)
    families = f"model family: {', '.join(FAMILIES)} [{DEFAULT_FAMILY}]"
    parser.add_argument("--family", default=argparse.SUPPRESS, metavar="NAME", help=families)
    for section in (Data, Training):
        add_section_flags(parser, {section.__name__.lower(): section})
    add_section_flags(parser, _families())


def config_from_flags(arguments: argparse.Namespace) -> Config:
    """Makes the config that a command line asks for.

    Raises:
        UserError: an unknown family or preset, a flag that the family or its body lacks, a value out of range, or
            options of training that do not go together.
    """
    given = vars(arguments)
    preset = read_preset(given["preset"]) if "preset" in given else None
    family = given.get("family", preset.family if preset else DEFAULT_FAMILY)
    model = family_class(family)
    if preset and family != preset.family:
        raise UserError(f"--preset {given['preset']} is a {preset.family}, not a {family}; leave out one of the two")
    base = preset or Config(model=model())
    config = base.changed({name: given[name] for name in _config_names() if name in given})
    config.training.check_together()
    return config


def add_flags_of(parser: argparse.ArgumentParser, section: type[Section], names: Sequence[str]) -> None:
    """Gives a parser the flags of some options of a section."""
    add_section_flags(parser, {section.__name__.lower(): section}, names)


def section_from_flags(section: type[Section], arguments: argparse.Namespace) -> Section:
    """Makes a section of what `add_flags_of` has put into a command line.

    Raises:
        UserError: a value out of range.
    """
    return section(**{name: value for name, value in vars(arguments).items() if name in section.options()})


def refuse_config_flags(arguments: argparse.Namespace, reason: str) -> None:
    """Refuses flags of the config where the config comes from elsewhere.

    Raises:
        UserError: such a flag was given; the message begins with the reason.
    """
    given = sorted(name for name in vars(arguments) if name in {*_config_names(), "family", "preset"})
    if given:
        raise UserError(f"{reason}; leave out {', '.join(map(flag, given))}")


def _families() -> dict[str, type[Section]]:
    return {name: family_class(name) for name in FAMILIES}


def _config_names() -> list[str]:
    """Names of all options of all sections that a config can have."""
    sections = (Data, Training, *_families().values())
    return list(
        dict.fromkeys(
            name
            for section in sections
            for name in (*section.any_options(), *(field.name for field in section.chosen_fields()))
        )
    )


def add_saved_models(parser: argparse.ArgumentParser) -> None:
    """Adds `--saved-models`, the folder in which models are written."""
    parser.add_argument(
        "--saved-models", type=user_path, default=pathlib.Path("saved_models"), help="folder of models [saved_models]"
    )
