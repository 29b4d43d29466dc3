"""Flags of sections on a command line: one for each option."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from sepnet.options.checks import flag, item_kind, kind
from sepnet.options.fields import Section


def add_section_flags(
    parser: argparse.ArgumentParser, sections: Mapping[str, type[Section]], names: Sequence[str] | None = None
) -> None:
    """Adds a group of flags, and one for each section that can be chosen in these.

    An option that several of them share becomes one flag, whose help names each default. A flag that is not given
    leaves no value in the arguments.

    Args:
        parser: gets the flags.
        sections: by the name that the help calls them.
        names: the options that get a flag; None: all.
    """
    choices: dict[str, dict[str, Any]] = {}
    bodies: dict[str, dict[str, dict]] = {}
    for name, section in sections.items():
        for field in section.chosen_fields():
            choices.setdefault(field.name, {})[name] = field
        for choice, part in list(section.classes())[1:]:
            bodies.setdefault(choice, {})[name] = part.options()
    parts = {option for owners in bodies.values() for options in owners.values() for option in options}
    own = {name: section.options() for name, section in sections.items()}
    # An option that a section shares with those chosen in others stands with these.
    shared = {name: {key: options[key] for key in options if key in parts} for name, options in own.items()}
    alone = {name: {key: options[key] for key in options if key not in parts} for name, options in own.items()}
    _add_options(parser.add_argument_group(" and ".join(alone)), alone, names)
    for name, fields in choices.items():
        field = next(iter(fields.values()))
        offered = "; ".join(f"{key}: {', '.join(field.metadata['registry'])}" for key, field in fields.items())
        group = parser.add_argument_group(f"{name} of the family")
        text = f"{field.metadata['help']} ({offered}) [{field.metadata['default']}]"
        group.add_argument(flag(name), default=argparse.SUPPRESS, metavar="NAME", help=text)
        labelled = {
            choice if len(owners) == 1 else f"{choice} of {owner}": options
            for choice, owners in bodies.items()
            for owner, options in owners.items()
        }
        _add_options(group, {**labelled, **{owner: options for owner, options in shared.items() if options}}, None)


def _add_options(group, sections: Mapping[str, Mapping], names: Sequence[str] | None) -> None:
    fields: dict[str, dict[str, Any]] = {}
    for section, options in sections.items():
        for name, field in options.items():
            if names is None or name in names:
                fields.setdefault(name, {})[section] = field
    for name, by_section in fields.items():
        field = next(iter(by_section.values()))
        choices = dict.fromkeys(choice for each in by_section.values() for choice in each.metadata["choices"])
        choices = f" ({', '.join(map(str, choices))})" if choices else ""
        defaults = _shown_defaults(by_section, len(sections))
        text = f"{field.metadata['help']}{choices}{defaults}".replace("%", "%%")
        if kind(field) is bool:
            group.add_argument(flag(name), action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text)
        else:
            is_list = kind(field) is tuple
            convert, metavar = (
                (_list_of(item_kind(field)), "A,B,...") if is_list else (kind(field), kind(field).__name__)
            )
            group.add_argument(flag(name), type=convert, default=argparse.SUPPRESS, metavar=metavar, help=text)


def _shown_defaults(fields: Mapping[str, Any], num_sections: int) -> str:
    """The end of a help text: the default, or each section's, and which sections have the option at all."""
    if all(field.default is None for field in fields.values()):
        return ""
    defaults = {section: _shown(field.default) for section, field in fields.items()}
    values = list(dict.fromkeys(defaults.values()))
    shown = values[0] if len(values) == 1 else ", ".join(f"{section} {value}" for section, value in defaults.items())
    only = f"; {' and '.join(fields)} only" if len(values) == 1 and len(fields) < num_sections else ""
    return f" [{shown}{only}]"


def _list_of(kind: type):
    def values(text: str) -> tuple:
        return tuple(kind(value.strip()) for value in text.split(","))

    # As argparse calls what it cannot read.
    values.__name__ = f"list of {kind.__name__}"
    return values


def _shown(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)
