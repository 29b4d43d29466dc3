"""Songs with guitars apart, out of packages."""

import io
import shutil

import numpy as np
import pytest
import soundfile

from benchmarks.real_songs import bring_songs, song_folders
from pipelines.errors import UserError

PARTS = {"artist": "Band", "folder": "usr/songs", "songs": {"train": {"Loud One": "loud"}, "test": {"Soft": "soft"}}}


def ogg(seed: int, num_samples: int, level: float) -> bytes:
    file = io.BytesIO()
    samples = np.random.default_rng(seed).normal(0, level, (num_samples, 2))
    soundfile.write(file, samples, 44_100, format="OGG")
    return file.getvalue()


@pytest.fixture
def files():
    return {
        "./usr/songs/loud/guitar.ogg": ogg(1, 30_000, 0.4),
        "./usr/songs/loud/song.ogg": ogg(2, 40_000, 0.4),
        "./usr/songs/soft/guitar.ogg": ogg(3, 20_000, 0.02),
        "./usr/songs/soft/song.ogg": ogg(4, 20_000, 0.02),
        "./usr/share/doc/songs/copyright": b"All may sing.",
    }


def read(path):
    return soundfile.read(path, dtype="int16")[0].astype(int)


def test_sources_make_up_the_mixture_and_loud_songs_are_scaled(run, write_package, files, tmp_path):
    package = write_package("songs", files, PARTS)
    bring_songs([package], tmp_path / "out", tmp_path / "packages")
    loud, soft = tmp_path / "out" / "train" / "Band - Loud One", tmp_path / "out" / "test" / "Band - Soft"
    for folder, name in ((loud, "loud"), (soft, "soft")):
        stems = {stem: read(folder / f"{stem}.wav") for stem in ("mixture", "guitar", "accompaniment")}
        np.testing.assert_array_equal(stems["mixture"], stems["guitar"] + stems["accompaniment"])
        assert (folder / "LICENCE.txt").read_text() == "All may sing."
        for stem, file in (("guitar", "guitar.ogg"), ("accompaniment", "song.ogg")):
            original = soundfile.read(io.BytesIO(files[f"./usr/songs/{name}/{file}"]))[0]
            gain = np.vdot(stems[stem][: len(original)], original) / np.vdot(original, original) / 32768
            np.testing.assert_allclose(stems[stem][: len(original)] / 32768, gain * original, atol=0.6 / 32768)
            assert not stems[stem][len(original) :].any()
            assert gain == pytest.approx(1, abs=1e-3) if name == "soft" else gain < 0.9
        if name == "loud":
            assert 32765 <= np.abs(stems["mixture"]).max() <= 32767
    outcome = run("pipelines.check", tmp_path / "out", "--sources", "guitar,accompaniment")
    assert outcome.status == 0 and "2 songs, nothing wrong" in outcome.stdout
    note = (tmp_path / "out" / "README.md").read_text()
    assert "| train/Band - Loud One | songs 1:2-3 | `usr/songs/loud` | MIT |" in note


def test_a_second_run_changes_nothing_and_needs_no_packages(write_package, files, snapshot, tmp_path):
    package = write_package("songs", files, PARTS)
    bring_songs([package], tmp_path / "out", tmp_path / "packages")
    first = snapshot(tmp_path / "out")
    bring_songs([package], tmp_path / "out", tmp_path / "nowhere")
    assert len(first) == 9 and snapshot(tmp_path / "out") == first


def test_a_song_that_is_missing_comes_again_the_same(write_package, files, snapshot, tmp_path):
    package = write_package("songs", files, PARTS)
    bring_songs([package], tmp_path / "out", tmp_path / "packages")
    first = snapshot(tmp_path / "out")
    folder, other = song_folders(package, tmp_path / "out")
    shutil.rmtree(folder)
    bring_songs([package], tmp_path / "out", tmp_path / "packages")
    again = snapshot(tmp_path / "out")
    assert {path: content for path, (_, content) in again.items()} == {
        path: content for path, (_, content) in first.items()
    }
    assert all(again[path] == first[path] for path in first if other in path.parents)


def test_a_broken_song_leaves_nothing(write_package, files, tmp_path):
    files["./usr/songs/loud/song.ogg"] = b"no audio"
    package = write_package("songs", files, PARTS)
    with pytest.raises(soundfile.LibsndfileError):
        bring_songs([package], tmp_path / "out", tmp_path / "packages")
    assert not list(tmp_path.rglob("*.wav"))


def test_nowhere_to_write_is_the_users_to_mend(write_package, files, tmp_path):
    package = write_package("songs", files, PARTS)
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match="cannot write"):
        bring_songs([package], tmp_path / "out", tmp_path / "packages")
