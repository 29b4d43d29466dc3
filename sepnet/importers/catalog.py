"""The catalogue of published weights."""

import functools
import importlib.resources
import json
from typing import Any


@functools.cache
def read_catalog() -> dict[str, dict[str, Any]]:
    """Published weights by name.

    Each has its `format` (a key of `IMPORTERS`), `what` it separates, `figures` (SDR of each source on MUSDB18, dB, or
    None), `reference`, `licence` and `url` (None where nobody publishes weights), `sha256` and `megabytes` (None where
    the publisher states none), the `files` that are wanted of an archive, and the importer's `options`.
    """
    return json.loads((importlib.resources.files("sepnet") / "importers" / "catalog.json").read_text())
