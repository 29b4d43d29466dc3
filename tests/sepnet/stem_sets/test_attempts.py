"""Deaths of workers at songs: which are counted, and what is left of that."""

import pytest

from pipelines.errors import UserError
from sepnet.stem_sets.attempts import Attempts
from sepnet.stem_sets.stem_set import StemSet
from tests.sepnet.stem_sets.clips import settings, write


def die(stem_set: StemSet, run: str, song: str) -> None:
    """Leaves what a worker leaves that dies at a song."""
    Attempts(stem_set.destination, 1, run).begin(song)


def test_the_third_worker_of_runs_that_outlive_it_is_the_last(anywhere):
    stem_set = StemSet.create_or_continue(anywhere, settings())
    # Of each run all but the last are followed by another one of it.
    for run in ("first", "first", "second", "second", "third"):
        die(stem_set, run, "album/song 2")
    assert not Attempts(stem_set.destination, 1, "fourth").fault("album/song 2")
    attempts = Attempts(stem_set.destination, 1, "third")
    assert attempts.fault("album/song 2").startswith("3 workers died at it")
    assert not attempts.fault("album/song 3") and not Attempts(stem_set.destination, 0, "third").fault("album/song 2")
    # It is remembered while others are tried.
    attempts.begin("album/song 3")
    assert Attempts(stem_set.destination, 1, "fourth").fault("album/song 2")


def test_runs_that_are_killed_as_a_whole_count_nothing(anywhere):
    stem_set = StemSet.create_or_continue(anywhere, settings())
    for run in "abcdef":
        die(stem_set, run, "album/song 2")
    assert not Attempts(stem_set.destination, 1, "g").fault("album/song 2")


def test_deaths_at_no_song_end_the_run_and_are_forgotten(anywhere):
    stem_set = StemSet.create_or_continue(anywhere, settings())
    # The first one is at its end, the others load the model.
    die(stem_set, "run", "album/song 2")
    for _ in range(3):
        die(stem_set, "run", "")
    with pytest.raises(UserError, match=r"^3 workers died while they loaded the model or wrote shard 1, .* --workers"):
        Attempts(stem_set.destination, 1, "run").begin()
    again = Attempts(stem_set.destination, 1, "again")
    again.begin()
    assert not again.fault("album/song 2")


@pytest.mark.parametrize("is_ended", [True, False])
def test_nothing_is_left_of_it(anywhere, is_ended):
    stem_set = StemSet.create_or_continue(anywhere, settings())
    attempts = Attempts(stem_set.destination, 1, "run")
    attempts.begin("album/song 2")
    assert len(stem_set.destination.names("parts")) == 1
    if is_ended:
        attempts.end()
        attempts.end()
        assert not stem_set.destination.names("parts")
    # Where a worker died that was slower than that of another run, it is left to whoever finishes.
    write(stem_set)
    assert all(name.endswith(".parquet") for name in stem_set.destination.names("parts"))
