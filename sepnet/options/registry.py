"""Registries: names, and where what they stand for is defined, imported on use.

A registry is a dict of "module:attribute" by name, so that its names can be listed without importing anything.
"""

import pkgutil
from collections.abc import Mapping
from typing import Any

from pipelines.errors import UserError


def load(registry: Mapping[str, str], name: Any, what: str) -> Any:
    """Imports what a name stands for.

    Args:
        registry: "module:attribute" by name.
        name: to look up; any value of JSON.
        what: the kind of thing, for the message: "family", say.

    Raises:
        UserError: the registry has no such name; the message lists its names.
    """
    # (A list cannot be looked up.)
    if not isinstance(name, str) or name not in registry:
        raise UserError(f"unknown {what} {name!r}; choose one of {', '.join(registry)}")
    return pkgutil.resolve_name(registry[name])


def name_of(registry: Mapping[str, str], thing: type) -> str:
    """The name under which a class is registered."""
    return next(name for name in registry if load(registry, name, "name") is thing)
