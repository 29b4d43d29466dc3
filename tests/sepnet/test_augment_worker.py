"""A worker of `sepnet.augment` meets songs that go wrong, without Ray."""

import contextlib
import re

import numpy as np
import pyarrow.parquet
import pytest
import soundfile

from pipelines.captioned.collection import read_collection
from pipelines.errors import RunError
from sepnet.augmentation import worker as worker_module
from sepnet.augmentation.worker import Job, Worker
from sepnet.clips.recipes import read_recipe
from sepnet.export.write import newest_version
from sepnet.stem_sets.attempts import Attempts
from sepnet.stem_sets.stem_set import StemSet
from tests.sepnet.helpers import noise
from tests.sepnet.stem_sets.clips import settings

RATE = 44_100
RECIPE = """
clip_seconds = 1
[[clip]]
kind = "stem"
caption = "{caption}, {source}"
sources = ["vocals"]
[[clip]]
kind = "remix"
sources = [["vocals"]]
caption = "{caption}, with {other_caption}"
"""


@pytest.fixture
def songs(tmp_path):
    """A folder with three songs of noise, 2 s each."""
    folder = tmp_path / "songs"
    folder.mkdir()
    for seed, name in enumerate(("first", "poison", "second")):
        soundfile.write(folder / f"{name}.flac", noise(2 * RATE, 2, seed=seed), RATE)
    return folder


@pytest.fixture
def make_worker(identity, songs, tmp_path, monkeypatch):
    """Makes a worker for the songs, all of one shard; the stems are the songs themselves."""
    version = newest_version(identity)
    model = {path.relative_to(version).as_posix(): path.read_bytes() for path in version.rglob("*") if path.is_file()}
    # A worker has a process of its own otherwise, and sets them.
    for name in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    with contextlib.ExitStack() as stack:

        def make(hook: str = "", **changes) -> Worker:
            (tmp_path / "recipe.toml").write_text(RECIPE)
            collection = read_collection(str(songs))
            chosen = settings(num_songs=len(collection), songs_per_shard=len(collection), **changes)
            stem_set = StemSet.create_or_continue(str(tmp_path / "set"), chosen)
            recipe = read_recipe(tmp_path / "recipe.toml", ["vocals", "rest"])
            worker = Worker(Job(stem_set, collection, recipe, hook, 1, None, run="one"), model)
            stack.enter_context(worker.meter)
            return worker

        yield make


def make_shard(worker: Worker) -> None:
    attempts = Attempts(worker.job.stem_set.destination, 0, worker.job.run)
    attempts.begin()
    worker.make(0, attempts)


def rows(folder, name):
    return pyarrow.parquet.read_table(folder / "parts" / f"shard-00000{name}.parquet").to_pylist()


@pytest.mark.parametrize("kind", ["stem", pytest.param("remix", marks=pytest.mark.slow)])
def test_a_song_at_which_workers_end_is_tried_three_times(make_worker, tmp_path, monkeypatch, kind):
    monkeypatch.setenv("ENDS_AT", kind)
    worker = make_worker("tests.sepnet.gated_captions:caption_that_ends")
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            make_shard(worker)
        assert not worker.job.stem_set.is_done(0)
    make_shard(worker)
    [failed] = rows(tmp_path / "set", ".failed")
    assert failed["song_id"] == "poison" and failed["reason"].startswith("3 workers died at it")
    pairs = [(row["song_id"], row["other_song_id"]) for row in rows(tmp_path / "set", "")]
    assert pairs == [*[("first", None)] * 2, *[("second", None)] * 2, ("first", "second"), ("second", "first")]
    assert worker.job.stem_set.destination.names("parts") == ["shard-00000.failed.parquet", "shard-00000.parquet"]


def test_of_damaged_songs_what_was_lost_and_what_is_left_is_said(make_worker, songs, tmp_path):
    whole = (songs / "first.flac").read_bytes()
    (songs / "first.flac").write_bytes(whole[: len(whole) * 4 // 5])
    (songs / "poison.flac").write_bytes(whole[:30])
    (songs / "second.flac").unlink()
    # Long enough that the first stems come out before the sample that is no number is read.
    sound = np.concatenate([noise(2 * RATE, 2), np.zeros((14 * RATE, 2), np.float32)])
    sound[15 * RATE] = np.nan
    soundfile.write(songs / "third.wav", sound, RATE, "FLOAT")
    worker = make_worker()
    make_shard(worker)
    first, poison, third = rows(tmp_path / "set", ".failed")
    assert (first["song_id"], first["num_clips"]) == ("first", 1)
    assert re.search(r"it breaks off after 1\.[56] of 2\.0 s$", first["reason"])
    assert (poison["song_id"], poison["num_clips"]) == ("poison", 0) and "cannot decode poison" in poison["reason"]
    assert (third["song_id"], third["num_clips"]) == ("third", 2)
    assert "NaN or infinity, first at 15.000 s" in third["reason"]
    assert [row["song_id"] for row in rows(tmp_path / "set", "")] == ["first", "third", "third"]
    totals = worker.job.stem_set.finish()
    assert (totals.num_songs, totals.num_failed, totals.num_partial) == (3, 1, 2)


@pytest.mark.parametrize(
    ("audio_format", "rate", "num_channels", "reason"),
    [
        ("opus", RATE, 3, "clips in Opus have 1 or 2 channels, and these 3; take flac"),
        ("flac", 705_600, 1, "flac cannot hold this audio (705600 Hz, channels: 1); convert the song"),
    ],
)
def test_what_the_format_cannot_hold_costs_its_song_alone(
    make_worker, songs, tmp_path, audio_format, rate, num_channels, reason
):
    (songs / "poison.flac").unlink()
    soundfile.write(songs / "poison.wav", noise(rate, num_channels), rate)
    make_shard(make_worker(audio_format=audio_format))
    [failed] = rows(tmp_path / "set", ".failed")
    assert (failed["song_id"], failed["num_clips"]) == ("poison", 0) and failed["reason"].startswith(reason)
    assert {row["song_id"] for row in rows(tmp_path / "set", "")} == {"first", "second"}


def test_a_function_that_fails_ends_the_run_and_costs_no_song(make_worker, tmp_path):
    worker = make_worker("math:sqrt")
    with pytest.raises(RunError, match="math:sqrt fails for song 'first' .*; mend the function"):
        make_shard(worker)
    assert not worker.job.stem_set.is_done(0)
    worker.hook = None
    make_shard(worker)
    assert not rows(tmp_path / "set", ".failed") and len(rows(tmp_path / "set", "")) == 12


def test_what_nobody_foresaw_costs_its_song_alone(make_worker, tmp_path, monkeypatch):
    clips_of, remixes_of = worker_module.clips_of, worker_module.remixes_of

    def clips_but_of_poison(excerpt, *others):
        if excerpt.song == "poison":
            raise MemoryError("Unable to allocate 40 GiB")
        return clips_of(excerpt, *others)

    def remixes_but_of_second(first, *others):
        if first.song == "second":
            raise ZeroDivisionError("no beats\nat all")
        return remixes_of(first, *others)

    monkeypatch.setattr(worker_module, "clips_of", clips_but_of_poison)
    monkeypatch.setattr(worker_module, "remixes_of", remixes_but_of_second)
    make_shard(make_worker())
    poison, second = rows(tmp_path / "set", ".failed")
    assert (poison["song_id"], poison["num_clips"]) == ("poison", 0)
    assert poison["reason"] == "MemoryError: Unable to allocate 40 GiB"
    assert (second["song_id"], second["num_clips"]) == ("second", 2)
    assert second["reason"] == "its remixes: ZeroDivisionError: no beats\\nat all"
    pairs = [(row["song_id"], row["other_song_id"]) for row in rows(tmp_path / "set", "")]
    assert pairs == [*[("first", None)] * 2, *[("second", None)] * 2, ("first", "second")]
