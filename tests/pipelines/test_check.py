import json
import os
import shutil

import numpy as np
import pytest
import soundfile

from pipelines import check
from pipelines.songs import inspection
from tests.pipelines.bad_songs import BAD_SONGS

SOURCES = ("vocals", "drums", "bass", "other")


@pytest.fixture(autouse=True)
def in_one_process(monkeypatch):
    """Songs this short are read sooner than a worker starts."""
    monkeypatch.setattr("pipelines.workers.num_cores", lambda: 1)


@pytest.fixture
def check_json(capsys):
    """Runs the command with --json and returns its status and its document."""

    def call(*arguments) -> tuple[int, dict]:
        status = check.main([*map(str, arguments), "--json"])
        return status, json.loads(capsys.readouterr().out)

    return call


def one_song(document: dict) -> dict:
    [song] = [song for song in document["songs"] if song["problems"] or song["notes"]]
    return song


def test_good_songs(tmp_path, write_song, run):
    for name in ("train/a", "train/b", "valid/Ä, or [b]", "test/d"):
        write_song(tmp_path / name, num_samples=80_000)
    outcome = run("pipelines.check", tmp_path, COLUMNS="80", PYTHONIOENCODING="utf-8")
    assert outcome.status == 0
    assert max(map(len, outcome.stdout.splitlines())) <= 80
    [row] = [line for line in outcome.stdout.splitlines() if line.startswith("│ train")]
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        "train", "2", "0 min 20 s", "8000", "2", "WAV PCM_16", "-200.0 dB", "-200.0 dB",
    ]  # fmt: skip
    assert "Validation songs: the songs in the folder valid" in outcome.stdout
    assert "4 songs, nothing wrong" in outcome.stdout
    assert "Ä, or [b]" in run("pipelines.check", tmp_path, "--all", PYTHONIOENCODING="utf-8").stdout


def test_of_a_mono_mixture_the_residual_is_that_of_the_same_twice(tmp_path, write_song, check_json):
    residuals = []
    for name, num_channels in (("mono", 1), ("stereo", 2)):
        song = write_song(tmp_path / name / "song")
        mixture = np.random.default_rng(1).normal(0, 0.1, (4000, 1))
        soundfile.write(song / "mixture.wav", np.repeat(mixture, num_channels, axis=1), 8000)
        _, document = check_json(tmp_path / name)
        residuals.append(document["splits"]["train"]["residual_db_median"])
    assert residuals[0] == pytest.approx(residuals[1], abs=0.01)


def test_sums_of_stems_are_one_line(tmp_path, write_song, run):
    write_song(tmp_path / "song")
    outcome = run("pipelines.check", tmp_path, "--sources", "vocals,accompaniment=drums+bass+other")
    assert outcome.status == 2 and "has sums; name the stems themselves" in outcome.stderr


def test_real_track(tmp_path, real_track, check_json):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        shutil.copyfile(real_track, tmp_path / split / real_track.name)
    status, document = check_json(tmp_path)
    assert status == 0
    summary = document["splits"]["test"]
    assert (summary["songs"], summary["sample_rates"], summary["formats"]) == (1, [44100], ["MP4 AAC"])
    assert summary["seconds"] == pytest.approx(268_288 / 44100)
    assert -16 < summary["residual_db_worst"] < -14


def test_songs_of_another_kind(openmsx, run):
    outcome = run("pipelines.check", openmsx, "--json")
    document = json.loads(outcome.stdout)
    assert outcome.status == 0
    assert document["splits"]["train"]["residual_db_median"] == pytest.approx(-21, abs=1)
    assert document["validation"].startswith("training songs, chosen by a hash")


@pytest.mark.parametrize("noise_db", [-40.0, -10.0, -2.0])
def test_distance_between_mixture_and_sum(tmp_path, write_song, check_json, noise_db):
    song = write_song(tmp_path / "test" / "a", num_samples=400_000)
    mixture, rate = soundfile.read(song / "mixture.wav")
    noise = np.random.default_rng(1).standard_normal(mixture.shape)
    noise *= np.sqrt(np.square(mixture).mean() * 10 ** (noise_db / 10) / np.square(noise).mean())
    soundfile.write(song / "mixture.wav", mixture + noise, rate, "FLOAT")
    expected = 10 * np.log10(np.square(noise).mean() / np.square(mixture + noise).mean())
    status, document = check_json(tmp_path)
    assert document["splits"]["test"]["residual_db_median"] == pytest.approx(expected, abs=0.01)
    assert document["splits"]["test"]["worst_song"] == "a"
    assert status == (1 if expected > inspection.FAR_RESIDUAL_DB else 0)


@pytest.mark.parametrize("damage", BAD_SONGS, ids=lambda damage: damage.__name__)
def test_bad_song(tmp_path, write_song, real_track, check_json, damage):
    for name in ("good 0", "good 1"):
        write_song(tmp_path / "songs" / name, num_channels=1)
    damage(tmp_path / "songs", write_song, real_track)
    status, document = check_json(tmp_path / "songs")
    assert status == 1
    song = one_song(document)
    assert song["name"] == "bad song"
    assert any(BAD_SONGS[damage] in problem for problem in song["problems"]), song["problems"]
    # The folder is said once, by the report.
    assert not any(str(tmp_path) in problem for problem in song["problems"])


@pytest.mark.parametrize("num_samples", [1, 2, 3])
def test_a_song_may_end_at_full_scale(num_samples):
    """Songs come in blocks, the last of which may be shorter than a run."""
    assert inspection.count_clipped(np.ones((num_samples, 2))) == 2 * (num_samples == inspection.CLIPPED_RUN)


def test_what_only_the_samples_tell(tmp_path, write_song, check_json):
    song = write_song(tmp_path / "a")
    write_song(tmp_path / "b", seed=1)
    soundfile.write(song / "bass.wav", np.zeros((4000, 1)), 8000, "PCM_16")
    drums = np.zeros((4000, 2))
    drums[100:105, 0] = 1.0
    drums[200:202, 1] = -1.0
    soundfile.write(song / "drums.wav", drums, 8000, "PCM_16")
    status, document = check_json(tmp_path)
    found = one_song(document)
    assert status == 1
    assert "silent: bass" in found["problems"]
    assert "mixes mono and stereo (vocals 2, drums 2, bass 1, other 2, mixture 2)" in found["notes"]
    assert found["notes"][1:] == ["clipped (samples in runs at full scale): drums 3"]


def test_stems_of_other_numbers_of_channels(tmp_path, write_song, check_json):
    song = write_song(tmp_path / "a")
    write_song(tmp_path / "b", seed=1)
    soundfile.write(song / "drums.wav", np.full((4000, 6), 0.1), 8000, "PCM_16")
    status, document = check_json(tmp_path)
    assert status == 1
    assert one_song(document)["problems"] == [
        "stems of different numbers of channels (vocals 2, drums 6, bass 2, other 2, mixture 2)"
    ]


def test_unreadable_folder(tmp_path, write_song, monkeypatch, check_json):
    for name in ("a", "b"):
        write_song(tmp_path / name)
    listdir = os.listdir

    def refuse(path):
        if os.path.basename(path) == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refuse)
    status, document = check_json(tmp_path)
    assert status == 1
    assert one_song(document)["problems"] == [
        "cannot read the folder b: Permission denied; check its permissions",
    ]


def test_different_rates(tmp_path, write_song, check_json):
    write_song(tmp_path / "a", sample_rate=8000)
    write_song(tmp_path / "b", sample_rate=16000)
    status, document = check_json(tmp_path)
    assert status == 1
    assert document["problems"] == ["songs have different sample rates: 8000, 16000 Hz"]
    assert "--sample-rate 16000" in document["suggestions"][0]


@pytest.mark.parametrize(
    "files, sources, suggestions",
    [
        ({"vocals.wav": "Vocals.WAV"}, SOURCES, ["rename Vocals.WAV to vocals.wav"]),
        ({"vocals.wav": "lead voice.wav"}, SOURCES, ["rename lead voice.wav to vocals.wav"]),
        ({"vocals.wav": "vox.wav", "drums.wav": "02_Drum.wav"}, SOURCES, [
            "rename vox.wav to vocals.wav", "rename 02_Drum.wav to drums.wav",
        ]),
        ({"bass.wav": "bass.mp3"}, SOURCES, ["convert bass.mp3 to bass.wav"]),
        ({"vocals.wav": "no_vocals.wav"}, SOURCES, []),
        ({"drums.wav": "accompaniment.wav", "bass.wav": None, "other.wav": None}, SOURCES, [
            "name the sources that are there: --sources vocals,accompaniment",
        ]),
        ({"vocals.wav": "Speech.wav"}, ("speech", "drums"), ["rename Speech.wav to speech.wav"]),
    ],
)  # fmt: skip
def test_what_to_rename(tmp_path, write_song, check_json, files, sources, suggestions):
    for name in ("a", "b"):
        song = write_song(tmp_path / name)
        for old, new in files.items():
            (song / old).rename(song / new) if new else (song / old).unlink()
    status, document = check_json(tmp_path, "--sources", ",".join(sources))
    assert status == 1
    assert document["suggestions"] == [f"{suggestion} (in 2 songs)" for suggestion in suggestions]


@pytest.mark.parametrize(
    "names, checked, suggestion",
    [
        (["data/musdb18hq/train/a", "data/musdb18hq/test/b"], ".", "python -m pipelines.check {root}/data/musdb18hq"),
        (["rock/album 1/a", "rock/album 1/b"], ".", "python -m pipelines.check '{root}/rock/album 1'"),
        (["songs/a"], "songs/a", "if it is one song, check the folder above, {root}/songs"),
        (["Train/a", "Test/b"], ".", "rename the folder Train to train"),
        (["training/a"], ".", "rename the folder training to train"),
    ],
)
def test_where_songs_are(tmp_path, write_song, check_json, names, checked, suggestion):
    for name in names:
        write_song(tmp_path / name)
    status, document = check_json(tmp_path / checked)
    assert status == 1
    assert document["songs"] == []
    assert suggestion.format(root=tmp_path) in "\n".join(document["suggestions"])


def test_misnamed_split_beside_a_good_one(tmp_path, write_song, check_json):
    write_song(tmp_path / "test" / "a")
    write_song(tmp_path / "Training" / "b")
    status, document = check_json(tmp_path)
    assert status == 1
    assert [song["name"] for song in document["songs"]] == ["a"]
    assert document["suggestions"] == ["rename the folder Training to train"]


def test_empty_folder(tmp_path, check_json):
    status, document = check_json(tmp_path)
    assert (status, document["is_good"], document["problems"]) == (1, False, [f"no songs under {tmp_path}"])
    assert document["suggestions"][0].startswith("put NAME.stem.mp4 files there")


def test_other_files_than_wav_or_flac(tmp_path, check_json):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "vocals.mp3").touch()
    assert check_json(tmp_path)[1]["suggestions"] == ["convert the .mp3 files to WAV or FLAC"]
    (tmp_path / "b.mp4").touch()
    assert check_json(tmp_path)[1]["suggestions"] == ["rename b.mp4 to b.stem.mp4, if it holds stems"]


def test_problems_are_printed(tmp_path, write_song, run):
    write_song(tmp_path / "test" / "good")
    (write_song(tmp_path / "test" / "bad [song]") / "bass.wav").rename(tmp_path / "test" / "bad [song]" / "Bass.wav")
    outcome = run("pipelines.check", tmp_path, COLUMNS="80")
    assert outcome.status == 1
    for text in ("bad [song]", "lacks bass", "To do: rename Bass.wav to bass.wav", "1 of 2 songs have problems"):
        assert text in outcome.stdout
    assert max(map(len, outcome.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    "arguments, reason",
    [
        ([], "path"),
        (["nowhere"], "no such folder: nowhere"),
        (["empty", "--tables"], "--tables"),
        (["empty", "--sources", "vocals"], "two or more names"),
        (["empty", "--sources", "vocals,mixture"], "two or more names"),
        (["empty", "--workers", "0"], "--workers: '0' is no whole number above 0"),
    ],
)
def test_usage_errors_are_one_line(tmp_path, run, arguments, reason):
    (tmp_path / "empty").mkdir()
    outcome = run("pipelines.check", *(str(tmp_path / word) if word == "empty" else word for word in arguments))
    assert outcome.status == 2
    assert outcome.stderr.startswith("error: ")
    assert outcome.stderr.count("\n") == 1
    assert reason in outcome.stderr


@pytest.mark.parametrize("module", ["pipelines.check", "pipelines.prepare"])
def test_help_needs_no_heavy_package(run, module):
    outcome = run(module, "--help", PYTHONPROFILEIMPORTTIME="1")
    assert outcome.status == 0
    assert "usage: python -m " + module in outcome.stdout
    for package in ("tensorflow", "keras", "rich", "scipy", "| av\n", "soxr", "musdb"):
        assert package not in outcome.stderr
