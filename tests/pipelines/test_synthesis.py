"""The demo songs: what is on disk, how it sounds, and what happens when it goes wrong."""

import os
import pathlib
import subprocess
import sys
import wave

import numpy as np
import pytest

from pipelines.cache import cache_path
from pipelines.demo_songs import synthesis
from pipelines.demo_songs.composition import KEYS, SPLITS, STEMS, Score
from pipelines.demo_songs.synthesis import demo_songs_path
from pipelines.errors import UserError

REPOSITORY = pathlib.Path(__file__).parents[2]
SAMPLE_RATE = 22_050
NUM_SONGS = {"train": 3, "valid": 1, "test": 1}
ONE_SONG = {"train": 1}


def synthesize_songs(destination, *, seed=0, song_seconds=4.0, num_songs=ONE_SONG):
    synthesis.synthesize_songs(destination, seed=seed, song_seconds=song_seconds, num_songs=num_songs)


@pytest.fixture
def after_the_first_song(monkeypatch):
    """Lets something happen after the first song is written."""
    write = synthesis._write_song

    def do(action) -> None:
        def write_and_act(*arguments) -> None:
            write(*arguments)
            monkeypatch.setattr(synthesis, "_write_song", write)
            action()

        monkeypatch.setattr(synthesis, "_write_song", write_and_act)

    return do


def read(path: pathlib.Path) -> np.ndarray:
    """Returns a file's samples, `[num_samples, 2]` int32 (wide enough to be added up)."""
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (2, 2, SAMPLE_RATE)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2).astype(np.int32)


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.wav")}


def level_db(samples: np.ndarray) -> float:
    return 20 * np.log10(np.sqrt(np.mean((samples / 32768) ** 2)))


def powers(samples: np.ndarray) -> np.ndarray:
    """Returns a power spectrogram of the left channel, `[num_frames, num_bins]`."""
    frames = np.lib.stride_tricks.sliding_window_view(samples[:, 0] / 32768, 1024)[::512]
    return np.abs(np.fft.rfft(frames * np.hanning(1024))) ** 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    destination = tmp_path_factory.mktemp("songs") / "demo"
    synthesize_songs(destination, song_seconds=8.0, num_songs=NUM_SONGS)
    return destination


@pytest.fixture(scope="module")
def songs(folder) -> list[dict[str, np.ndarray]]:
    return [{path.stem: read(path) for path in song.iterdir()} for song in sorted(folder.glob("*/*"))]


def start_python(code: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=REPOSITORY, env={**os.environ, **environment}, stdout=subprocess.PIPE
    )


# On disk


def test_the_layout_is_that_of_musdb18_hq(folder, songs):
    assert {path.name: len(list(path.iterdir())) for path in folder.iterdir()} == NUM_SONGS
    for song in songs:
        assert set(song) == {"mixture", *STEMS}
        assert {samples.shape for samples in song.values()} == {(8 * SAMPLE_RATE, 2)}


def test_names_are_two_words_and_differ_across_splits(folder):
    names = [path.name for path in folder.glob("*/*")]
    assert all(len(name.split(" ")) == 2 for name in names)
    every = [synthesis._song_name(5, split, index) for split in SPLITS for index in (0, 1, 340)]
    assert len(set(names)) == len(names) and len(set(every)) == len(every)


def test_one_seed_gives_the_same_bytes_and_more_songs_change_none(folder, tmp_path):
    synthesize_songs(tmp_path / "fewer", song_seconds=8.0, num_songs={"train": 2, "test": 1})
    fewer, all_of_them = contents(tmp_path / "fewer"), contents(folder)
    assert fewer and fewer.items() <= all_of_them.items()


def test_another_seed_gives_other_songs(tmp_path):
    for seed in (0, 1):
        synthesize_songs(tmp_path / str(seed), seed=seed)
    first, second = ({path.name: path.read_bytes() for path in tmp_path.glob(f"{seed}/*/*/*")} for seed in (0, 1))
    assert all(first[name] != second[name] for name in first)


def test_other_lengths(tmp_path):
    synthesize_songs(tmp_path / "demo", song_seconds=4.1)
    with wave.open(str(next((tmp_path / "demo").glob("*/*/vocals.wav")))) as file:
        assert file.getnframes() == 90_405


# How it sounds


def test_the_mixture_is_the_exact_sum_and_never_clips(songs):
    for song in songs:
        np.testing.assert_array_equal(song["mixture"], sum(song[stem] for stem in STEMS))
        assert all(np.abs(samples).max() <= 0.91 * 32767 for samples in song.values())


def test_levels_are_comparable(songs):
    for song in songs:
        levels = [level_db(song[stem]) for stem in STEMS]
        assert max(levels) - min(levels) < 10
        assert -19 < level_db(song["mixture"]) < -13


def test_every_stem_rests_somewhere_but_never_all_at_once(songs):
    block = SAMPLE_RATE // 4
    for song in songs:
        silent = {}
        for name, samples in song.items():
            blocks = samples[: len(samples) // block * block].reshape(-1, block * 2)
            silent[name] = ~blocks.any(axis=1)
        assert all(0 < silent[stem].sum() < 0.8 * len(silent[stem]) for stem in STEMS)
        assert not silent["mixture"].any()
        assert silent["vocals"][0]


def test_the_two_channels_differ_a_little(songs):
    for song in songs:
        left, right = song["other"].T
        assert 0.1 < np.corrcoef(left, right)[0, 1] < 0.999


def test_stems_overlap_in_time_and_pitch(songs):
    """A share of each stem's energy lies where another one is at most 20 dB softer."""
    spectra = [{stem: powers(song[stem]) for stem in STEMS} for song in songs]

    def share(stem: str, other: str) -> float:
        masked = sum((song[stem] * (song[other] > 0.01 * song[stem])).sum() for song in spectra)
        return masked / sum(song[stem].sum() for song in spectra)

    assert share("vocals", "other") > 0.15
    assert share("other", "vocals") > 0.15
    assert share("drums", "bass") > 0.15
    assert share("bass", "other") > 0.03


def test_splits_share_no_key():
    assert sorted(key for keys in KEYS.values() for key in keys) == list(range(12))
    rng = np.random.default_rng(0)
    for split in SPLITS:
        assert {Score(rng, split=split, song_seconds=4.0).key for _ in range(100)} == {*KEYS[split]}


def test_somebody_plays_at_every_step():
    for seed in range(50):
        score = Score(np.random.default_rng(seed), split="train", song_seconds=4.0)
        playing = {step for stem in STEMS for step, _, _ in score.steps(stem)}
        assert playing == set(range(int(np.ceil(score.num_samples / score.step_samples))))


# When it goes wrong


def test_a_destination_that_cannot_be_written_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write .*file") as caught:
        synthesize_songs(tmp_path / "file" / "demo")
    assert "\n" not in str(caught.value)


def test_a_failure_leaves_nothing_behind(tmp_path, after_the_first_song):
    def fail() -> None:
        raise RuntimeError("stop")

    after_the_first_song(fail)
    with pytest.raises(RuntimeError, match="stop"):
        synthesize_songs(tmp_path / "demo")
    assert not list(tmp_path.iterdir())


def test_a_killed_run_leaves_no_destination(tmp_path):
    destination = tmp_path / "demo"
    process = start_python(
        "import pathlib, time; from pipelines.demo_songs import synthesis\n"
        "write = synthesis._write_song\n"
        "def pause(*arguments): write(*arguments); print('one', flush=True); time.sleep(60)\n"
        "synthesis._write_song = pause\n"
        f"options = dict(seed=0, song_seconds=4.0, num_songs={ONE_SONG})\n"
        f"synthesis.synthesize_songs(pathlib.Path({str(destination)!r}), **options)"
    )
    with process:
        assert process.stdout.readline().strip() == b"one"
        process.kill()
    assert not destination.exists()
    synthesize_songs(destination)
    assert len(list(destination.glob("train/*/*.wav"))) == 5


# The cache


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("SEPNET_CACHE", str(tmp_path))
    assert cache_path() == tmp_path
    monkeypatch.setenv("SEPNET_CACHE", "")
    assert cache_path().name == "sepnet"


def test_the_demo_songs_are_made_once(monkeypatch, tmp_path):
    monkeypatch.setenv("SEPNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(synthesis, "NUM_SONGS", {"train": 1, "valid": 0, "test": 0})
    folder = demo_songs_path()
    assert folder == tmp_path / "cache" / "demo-songs-v1-seed0-22050hz-20s-1-0-0"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.wav")}
    assert demo_songs_path() == folder
    assert len(before) == 5 and before == {path: path.stat().st_mtime_ns for path in folder.rglob("*.wav")}


def test_two_processes_at_once_both_end_well(tmp_path):
    code = (
        "from pipelines.demo_songs import synthesis\n"
        "synthesis.NUM_SONGS = {'train': 2, 'valid': 0, 'test': 0}\n"
        "print(synthesis.demo_songs_path(), flush=True)"
    )
    processes = [start_python(code, SEPNET_CACHE=str(tmp_path)) for _ in range(2)]
    printed = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert printed[0] == printed[1]
    assert [path.name for path in tmp_path.iterdir()] == ["demo-songs-v1-seed0-22050hz-20s-2-0-0"]
    assert len(contents(tmp_path)) == 10


def test_the_slower_of_two_takes_the_folder_of_the_faster(tmp_path, after_the_first_song):
    destination = tmp_path / "demo"

    def overtake() -> None:
        synthesize_songs(destination, seed=1)

    after_the_first_song(overtake)
    synthesize_songs(destination)
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
    assert (destination / "train" / synthesis._song_name(1, "train", 0)).is_dir()
