"""The folder where sepnet keeps what it can make again."""

import os
import pathlib

import platformdirs


def cache_path() -> pathlib.Path:
    """Returns the cache folder, which may not exist yet: `SEPNET_CACHE` where it is set, else the user's own."""
    override = os.environ.get("SEPNET_CACHE")
    return pathlib.Path(override) if override else platformdirs.user_cache_path("sepnet")
