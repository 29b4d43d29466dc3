"""Sections: dataclasses whose fields are options, one of which may be a section chosen by name."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

from pipelines.errors import UserError
from sepnet.options.checks import check, flag
from sepnet.options.registry import load, name_of

# The key of a chosen section's name in JSON.
NAME = "name"


def option(
    default: Any,
    help: str,
    *,
    choices: tuple | Mapping = (),
    at_least: float | None = None,
    at_most: float | None = None,
    rule: Callable[[Any], bool] | None = None,
):
    """A field: its default, help text and the values that it takes.

    Args:
        default: its value where nothing is given.
        help: text of the flag.
        choices: the values that it takes, or a registry of them by name.
        at_least: smallest value.
        at_most: largest value.
        rule: says of a value whether it is allowed; its docstring is what the message asks for.
    """
    limits = {"choices": tuple(choices), "at_least": at_least, "at_most": at_most, "rule": rule}
    return dataclasses.field(default=default, metadata={"help": help, **limits})


def other_default(base: type, name: str, default: Any):
    """The field of a base class with another default."""
    return dataclasses.field(default=default, metadata=base.__dataclass_fields__[name].metadata)


def chosen(registry: Mapping[str, str], default: str, help: str):
    """A field that holds a section, chosen by name.

    Args:
        registry: the classes to choose from; see `sepnet.options.registry`.
        default: name of the default.
        help: text of the flag.
    """
    return dataclasses.field(
        default_factory=lambda: load(registry, default, "name")(),
        metadata={"help": help, "registry": registry, "default": default},
    )


class Section:
    """Base of all sections: checks every value when one is made, reads and writes plain values.

    Raises:
        UserError: a value is of another type than its field, or out of range.
    """

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if "registry" not in field.metadata:
                check(field, getattr(self, field.name))

    @classmethod
    def chosen_fields(cls) -> list[dataclasses.Field]:
        """The fields that hold a chosen section."""
        return [field for field in dataclasses.fields(cls) if "registry" in field.metadata]

    @classmethod
    def options(cls) -> dict[str, dataclasses.Field]:
        """The fields by name, less those that hold a section."""
        return {field.name: field for field in dataclasses.fields(cls) if "registry" not in field.metadata}

    @classmethod
    def classes(cls) -> Iterator[tuple[str, type["Section"]]]:
        """This class and those of all sections that can be chosen in it, each with the name that it is chosen by."""
        yield "", cls
        for field in cls.chosen_fields():
            for name in field.metadata["registry"]:
                yield name, load(field.metadata["registry"], name, field.name)

    @classmethod
    def any_options(cls) -> dict[str, type["Section"]]:
        """The first class that has an option, of `classes`, by the option's name."""
        return {name: section for _, section in reversed(list(cls.classes())) for name in section.options()}

    def names(self) -> set[str]:
        """Names of the options that it takes, with those of the sections that are chosen in it."""
        parts = {field.name: getattr(self, field.name) for field in self.chosen_fields()}
        return {*self.options(), *parts}.union(*(part.names() for part in parts.values()))

    def changed(self, values: Mapping[str, Any]) -> Self:
        """A copy with other values.

        Args:
            values: by name, for its own fields and those of the sections chosen in it; others are not used. The value
                of a field that holds a section is a name. Another section than before takes over what was changed
                from its defaults, as far as it has such options.

        Raises:
            UserError: a value is out of range, or no such section.
        """
        own = {name: values[name] for name in self.options() if name in values}
        for field in self.chosen_fields():
            part = getattr(self, field.name)
            if field.name in values:
                part = _exchanged(part, field, values[field.name])
            own[field.name] = part.changed(values)
        return dataclasses.replace(self, **own)

    def to_values(self) -> dict[str, Any]:
        """Plain values, for JSON; those of a chosen section come with its `name`."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for field in self.chosen_fields():
            part = values[field.name]
            values[field.name] = {NAME: name_of(field.metadata["registry"], type(part)), **part.to_values()}
        return values

    @classmethod
    def from_values(cls, values: Any) -> Self:
        """Makes a section of what `to_values` gives; what is missing takes its default.

        Raises:
            UserError: a key that nothing reads, a value out of range, or no such section.
        """
        check_keys(values, [field.name for field in dataclasses.fields(cls)], cls.__name__)
        # JSON knows no tuples.
        found = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        for field in cls.chosen_fields():
            if field.name in found:
                found[field.name] = _part_from(field, found[field.name])
        return cls(**found)


def check_keys(values: Any, known: list[str], where: str) -> None:
    """Checks that values are a JSON object with no keys but the known ones.

    Raises:
        UserError: they are not; the message names `where`.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{where} is {values!r}; expected a JSON object")
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise UserError(f"{where} has no {unknown[0]!r}; it takes {', '.join(known)}")


def _exchanged(part: Section, field: dataclasses.Field, name: str) -> Section:
    """The section of another name, with what was changed of the one before."""
    registry = field.metadata["registry"]
    if name not in registry:
        raise UserError(f"{flag(field.name)} is {name!r}; choose one of {', '.join(registry)}")
    section = load(registry, name, field.name)
    if type(part) is section:
        return part
    changed = {key: getattr(part, key) for key, own in part.options().items() if getattr(part, key) != own.default}
    return section(**{key: value for key, value in changed.items() if key in section.options()})


def _part_from(field: dataclasses.Field, values: Any) -> Section:
    registry = field.metadata["registry"]
    if not isinstance(values, Mapping):
        raise UserError(f"{field.name} is {values!r}; expected a JSON object")
    name = values.get(NAME, field.metadata["default"])
    section = load(registry, name, field.name)
    return section.from_values({key: value for key, value in values.items() if key != NAME})
