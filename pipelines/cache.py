"""The folder where sepnet keeps what it can make again."""

import os
import pathlib

import platformdirs

# Of the name that a folder in the cache is called after: with a key behind it, one of 255 bytes would be too long.
MOST_CHARACTERS = 50


def cache_path() -> pathlib.Path:
    """Returns the cache folder, which may not exist yet: `SEPNET_CACHE` where it is set, else the user's own."""
    override = os.environ.get("SEPNET_CACHE")
    return pathlib.Path(override) if override else platformdirs.user_cache_path("sepnet")
