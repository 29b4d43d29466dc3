"""Checks of a single value against its field's type and range."""

import dataclasses
import sys
import types
import typing
from typing import Any

from pipelines.errors import UserError

# NumPy, TensorFlow and KerasTuner count in 64 bits.
LARGEST = {int: 2**63 - 1, float: sys.float_info.max}


def flag(name: str) -> str:
    """The flag of a field."""
    return "--" + name.replace("_", "-")


def kind(field: dataclasses.Field) -> type:
    """The type of a field's values: of `int | None` it is `int`, of `tuple[str, ...]` it is `tuple`."""
    annotation = without_none(field.type)
    return typing.get_origin(annotation) or annotation


def item_kind(field: dataclasses.Field) -> type:
    """The type of the values in a tuple: of `tuple[str, ...]` it is `str`."""
    return typing.get_args(without_none(field.type))[0]


def without_none(annotation):
    """A type annotation less `| None`."""
    if isinstance(annotation, types.UnionType):
        return next(kind for kind in typing.get_args(annotation) if kind is not type(None))
    return annotation


def check(field: dataclasses.Field, value: Any) -> None:
    """Checks a value of a field that `option` made.

    Raises:
        UserError: the value is of another type, or out of the field's range.
    """
    expected, limits, name = kind(field), field.metadata, flag(field.name)
    if value is None and without_none(field.type) is not field.type:
        return
    is_number_for_float = expected is float and isinstance(value, int)
    if not (isinstance(value, expected) or is_number_for_float) or (expected is not bool and isinstance(value, bool)):
        raise UserError(f"{name} takes a {expected.__name__}, not {value!r}")
    if expected is str and not value.strip():
        raise UserError(f"{name} is empty; leave it out, or give it a value")
    if type(value) in LARGEST and not abs(value) <= LARGEST[type(value)]:
        raise UserError(f"{name} is {value}; it must be a finite number of 64 bits")
    if limits["choices"] and value not in limits["choices"]:
        raise UserError(f"{name} is {value!r}; choose one of {', '.join(map(str, limits['choices']))}")
    if limits["at_least"] is not None and not value >= limits["at_least"]:
        raise UserError(f"{name} is {value}; it must be at least {limits['at_least']}")
    if limits["at_most"] is not None and not value <= limits["at_most"]:
        raise UserError(f"{name} is {value}; it must be at most {limits['at_most']}")
    if limits["rule"] is not None and not limits["rule"](value):
        shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
        raise UserError(f"{name} is {shown!r}; {limits['rule'].__doc__}")
