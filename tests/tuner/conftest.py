"""Fixtures of the tests of searches."""

import pytest

from tests.tuner.searching import tiny_search


@pytest.fixture(scope="session")
def write_songs(write_song):
    """Writes a song for each split into a folder, and returns it."""

    def write(folder):
        for number, split in enumerate(("train", "valid")):
            write_song(folder / split / f"song {number}", seed=number)
        return folder

    return write


@pytest.fixture
def songs(tmp_path, write_songs):
    return write_songs(tmp_path / "songs")


@pytest.fixture
def flags(songs, tmp_path):
    """The arguments of a tiny search of depths 1 and 2."""
    return tiny_search(songs, tmp_path, "1-2")
