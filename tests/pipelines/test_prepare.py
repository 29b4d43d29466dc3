import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import psutil
import pytest
import soundfile
import soxr

from pipelines import prepare
from pipelines.audio import reading
from pipelines.copies import make
from pipelines.errors import UserError, run_command
from pipelines.files import folder_lock
from pipelines.songs.layouts import STEM_STREAMS, Song
from tests.conftest import REPOSITORY, SOURCES
from tests.pipelines.bad_songs import BAD_SONGS, not_a_number

needs_ffmpeg = pytest.mark.skipif(
    not (shutil.which("ffmpeg") and shutil.which("ffprobe")), reason="musdb needs ffmpeg and ffprobe"
)


# Prepares songs, of which those of one name alone are ever done: the others wait after their first block.
PREPARE_FOR_EVER = """
import os, threading
from pipelines import prepare
from pipelines.copies import make
from pipelines.errors import run_command

convert = make.convert_song


def convert_song(conversion, advance):
    return convert(conversion, advance if conversion.song.name == os.environ["DONE"] else wait)


def wait(seconds):
    threading.Event().wait()


make.convert_song = convert_song
if __name__ == "__main__":
    run_command(prepare.main)
"""


def tree(folder: pathlib.Path) -> dict[str, bytes]:
    """Every file under a folder, and every empty folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
        if path.is_file() or not any(path.iterdir())
    }


def read(path: pathlib.Path) -> np.ndarray:
    return soundfile.read(path, dtype="int16", always_2d=True)[0]


@pytest.fixture
def stem_files(tmp_path, real_track):
    """A data set of six real songs."""
    folder = tmp_path / "musdb"
    for split, number in (("train", 4), ("test", 2)):
        (folder / split).mkdir(parents=True)
        for index in range(number):
            shutil.copyfile(real_track, folder / split / f"Song {index}.stem.mp4")
    return folder


@needs_ffmpeg
def test_equals_musdbs_decoding(tmp_path, real_track):
    import musdb

    source = tmp_path / "musdb" / "train"
    source.mkdir(parents=True)
    shutil.copyfile(real_track, source / "Falcon 69.stem.mp4")
    make.prepare_songs(source.parent, tmp_path / "wav")
    [track] = musdb.DB(root=str(source.parent), subsets=["train"]).tracks
    expected = np.rint(track.stems * 32768).astype(int)
    for stem, samples in zip(STEM_STREAMS, expected, strict=True):
        prepared = read(tmp_path / "wav" / "train" / "Falcon 69" / f"{stem}.wav")
        assert prepared.shape == samples.shape
        assert np.abs(prepared - samples).max() <= 1
    # musdb reads the tree as MUSDB18-HQ.
    [track] = musdb.DB(root=str(tmp_path / "wav"), subsets=["train"], is_wav=True).tracks
    np.testing.assert_array_equal(np.rint(track.targets["bass"].audio * 32768), read(track.sources["bass"].path))


@needs_ffmpeg
def test_equals_musdbs_decoding_of_padded_streams(tmp_path, openmsx):
    import stempeg

    song = min((openmsx / "test").glob("*.stem.mp4"))
    (tmp_path / "one").mkdir()
    shutil.copyfile(song, tmp_path / "one" / song.name)
    make.prepare_songs(tmp_path / "one", tmp_path / "wav", workers=1)
    expected = np.rint(stempeg.read_stems(str(song), ffmpeg_format="s16le")[0] * 32768).astype(int)
    folder = tmp_path / "wav" / "train" / song.name.removesuffix(".stem.mp4")
    prepared = np.stack([read(folder / f"{stem}.wav") for stem in STEM_STREAMS])
    # Newer versions of ffmpeg cut the padding of the last frame off, 8 samples here; older ones keep it.
    common = min(prepared.shape[1], expected.shape[1])
    assert max(prepared.shape[1], expected.shape[1]) - common < 1024
    assert np.abs(prepared[:, :common] - expected[:, :common]).max() <= 1


@pytest.mark.parametrize(
    "subtype, suffix", [("PCM_16", ".wav"), ("PCM_24", ".wav"), ("FLOAT", ".wav"), ("PCM_24", ".flac")]
)
@pytest.mark.parametrize("num_channels", [1, 2])
def test_any_encoding_becomes_16_bit(tmp_path, write_song, subtype, suffix, num_channels):
    song = write_song(
        tmp_path / "songs" / "test" / "a", subtype=subtype, suffix=suffix, num_channels=num_channels, sample_rate=96000
    )
    make.prepare_songs(tmp_path / "songs", tmp_path / "wav")
    for file in song.iterdir():
        prepared = tmp_path / "wav" / "test" / "a" / f"{file.stem}.wav"
        info = soundfile.info(prepared)
        assert (info.format, info.subtype, info.samplerate) == ("WAV", "PCM_16", 96000)
        expected = np.rint(soundfile.read(file, always_2d=True)[0] * 32768)
        np.testing.assert_array_equal(read(prepared), expected)


def test_resamples_in_a_stream_as_in_one_piece(tmp_path, write_song, monkeypatch):
    monkeypatch.setattr(reading, "BLOCK_SAMPLES", 1000)
    song = write_song(tmp_path / "songs" / "a", num_samples=12345, sample_rate=48000)
    make.prepare_songs(tmp_path / "songs", tmp_path / "wav", sample_rate=44100)
    samples, _ = soundfile.read(song / "bass.wav", dtype="float32")
    expected = soxr.resample(samples, 48000, 44100)
    prepared = read(tmp_path / "wav" / "train" / "a" / "bass.wav")
    assert prepared.shape == expected.shape
    assert np.abs(prepared - expected * 32768).max() <= 1


def test_counts_what_it_clips(tmp_path, capsys):
    folder = tmp_path / "songs" / "loud"
    folder.mkdir(parents=True)
    samples = np.array([[1.0], [-1.0], [0.99999], [1.5], [-1.5], [0.0]])
    soundfile.write(folder / "vocals.wav", samples, 8000, "DOUBLE")
    soundfile.write(folder / "noise.wav", samples * 0, 8000, "PCM_16")
    make.prepare_songs(tmp_path / "songs", tmp_path / "wav")
    prepared = tmp_path / "wav" / "train" / "loud"
    assert read(prepared / "vocals.wav").ravel().tolist() == [32767, -32768, 32767, 32767, -32768, 0]
    assert json.loads((prepared / "prepared.json").read_text())["clipped_samples"] == {"noise": 0, "vocals": 4}
    assert "clipped: song 'loud' had samples beyond full scale (vocals 4)" in capsys.readouterr().out


def test_what_could_not_be_decoded_is_said_at_once_and_kept(tmp_path, write_song, capsys):
    bass = write_song(tmp_path / "songs" / "a", num_samples=40_000, suffix=".flac") / "bass.flac"
    content = bass.read_bytes()
    bass.write_bytes(content[: len(content) // 2] + b"\xaa" * 300 + content[len(content) // 2 + 300 :])
    not_a_number(tmp_path / "songs", write_song, None)
    with pytest.raises(UserError, match="bad song"):
        make.prepare_songs(tmp_path / "songs", tmp_path / "wav", workers=1)
    [said] = capsys.readouterr().err.splitlines()
    assert re.fullmatch(rf"{bass}: .* s could not be decoded and is silent, first at .* s", said)
    assert json.loads((tmp_path / "wav" / "train" / "a" / "prepared.json").read_text())["undecoded"] == [said]


def test_memory_does_not_grow_with_the_song(tmp_path, write_song):
    def peak_bytes(num_samples: int) -> int:
        folder = write_song(tmp_path / str(num_samples), ["speech", "noise"], num_samples=num_samples, num_channels=1)
        tracemalloc.start()
        for _ in Song("a", "train", folder).blocks(["speech", "noise"], print):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert peak_bytes(4_000_000) < 1.1 * peak_bytes(1_000_000)


def test_keeps_splits_and_names(tmp_path, write_song):
    for name in ("train/Ä song, with spaces", "valid/b", "test/日本", "outside"):
        write_song(tmp_path / "songs" / name)
    make.prepare_songs(tmp_path / "songs", tmp_path / "wav")
    prepared = {str(path.parent.relative_to(tmp_path / "wav")) for path in (tmp_path / "wav").rglob("bass.wav")}
    assert prepared == {"train/Ä song, with spaces", "valid/b", "test/日本", "train/outside"}


def test_a_song_that_moved_to_another_split_is_in_that_alone(tmp_path, write_song, capsys):
    songs, wav = tmp_path / "songs", tmp_path / "wav"
    for number, name in enumerate("abc"):
        write_song(songs / "train" / name, seed=number)
    # Another song of that name, as another folder of songs has left it.
    make.prepare_songs(write_song(tmp_path / "others" / "test" / "b", seed=9).parents[1], wav, workers=1)
    make.prepare_songs(songs, wav, workers=1)
    (songs / "test").mkdir()
    (songs / "train" / "a").rename(songs / "test" / "a")
    capsys.readouterr()
    make.prepare_songs(songs, wav, workers=1)
    assert f"removed {wav / 'train' / 'a'}: song 'a' is in test now\n" in capsys.readouterr().out
    assert {path.relative_to(wav).as_posix() for path in wav.glob("*/*")} == {"test/a", "test/b", "train/b", "train/c"}


def test_songs_may_lack_stems_that_are_not_asked_for(tmp_path, write_song):
    write_song(tmp_path / "songs" / "a", ("vocals", "drums"))
    for number, name in enumerate("bcd"):
        write_song(tmp_path / "songs" / name, ("vocals", "drums", "bass"), seed=number + 1)
    make.prepare_songs(tmp_path / "songs", tmp_path / "wav", workers=1, stems=["vocals", "drums"])
    assert len(list(tmp_path.glob("wav/train/*"))) == 4
    with pytest.raises(UserError, match="song 'a' lacks bass, which most songs have"):
        make.prepare_songs(tmp_path / "songs", tmp_path / "all", workers=1)


def test_a_song_without_a_sample_at_its_new_rate_is_bad(tmp_path, write_song, capsys):
    write_song(tmp_path / "songs" / "short", num_samples=1, sample_rate=96_000)
    write_song(tmp_path / "songs" / "whole", sample_rate=96_000)
    make.prepare_songs(tmp_path / "songs", tmp_path / "wav", workers=1, sample_rate=8000, skip_bad=True)
    assert "left out: song 'short' is too short for one sample at 8000 Hz" in capsys.readouterr().out
    assert [path.name for path in tmp_path.glob("wav/train/*")] == ["whole"]


def test_says_what_it_will_do(stem_files, tmp_path, run):
    outcome = run("pipelines.prepare", stem_files, tmp_path / "wav", "--sample-rate", "22050")
    assert outcome.status == 0
    assert f"converting 6 songs, 37 s of audio, from {stem_files} to {tmp_path / 'wav'}: 0.02 GB" in outcome.stdout
    assert "seconds of audio per second" in outcome.stdout
    again = run("pipelines.prepare", stem_files, tmp_path / "wav", "--sample-rate", "22050")
    assert (again.status, again.stderr) == (0, "")
    assert again.stdout == f"all 6 songs are in {tmp_path / 'wav'} already\n"


def test_only_what_changed_is_converted_again(stem_files, tmp_path, capsys):
    wav = tmp_path / "wav"
    make.prepare_songs(stem_files, wav, workers=1)
    before = {path: path.stat().st_mtime_ns for path in wav.rglob("bass.wav")}
    os.utime(stem_files / "test" / "Song 1.stem.mp4", ns=(1, 1))
    make.prepare_songs(stem_files, wav, workers=1)
    changed = {path.parent.name for path, modified in before.items() if path.stat().st_mtime_ns != modified}
    assert changed == {"Song 1"}
    assert sum(path.stat().st_mtime_ns != modified for path, modified in before.items()) == 1
    # Asked for the rate that they have, the songs stay; another one makes them anew.
    capsys.readouterr()
    make.prepare_songs(stem_files, wav, sample_rate=44100, workers=1)
    assert "already" in capsys.readouterr().out
    make.prepare_songs(stem_files, wav, sample_rate=8000, workers=1)
    assert {soundfile.info(path).samplerate for path in before} == {8000}


def lives(process):
    try:
        # Whoever adopts orphans takes note of their ends in its own time.
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    "done, pattern",
    [("", ".sepnet-unfinished-*"), ("Song 0", "Song*")],
    ids=["while a song is written", "after a song"],
)
def test_killed_and_started_again_it_leaves_the_same_tree(stem_files, tmp_path, run, done, pattern):
    make.prepare_songs(stem_files, tmp_path / "undisturbed", workers=1)
    wav, script = tmp_path / "wav", tmp_path / "prepare.py"
    script.write_text(PREPARE_FOR_EVER)
    command = [sys.executable, script, stem_files, wav, "--workers", "2"]
    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(REPOSITORY), "DONE": done}, **options)
    while not any(wav.glob(f"*/{pattern}/*.wav")):
        assert process.poll() is None
        time.sleep(0.001)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    assert len(list(wav.glob("*/Song*"))) < 6
    # Its workers end with it.
    while any(map(lives, workers)):
        time.sleep(0.01)
    assert run("pipelines.prepare", stem_files, wav).status == 0
    assert tree(wav) == tree(tmp_path / "undisturbed")


def test_waits_for_another_run_and_leaves_its_folders_alone(stem_files, tmp_path):
    wav = tmp_path / "wav"
    with folder_lock(wav):
        unfinished = wav / "train" / ".sepnet-unfinished-1-abcd_123"
        unfinished.mkdir(parents=True)
        command = [sys.executable, "-m", "pipelines.prepare", str(stem_files), str(wav)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8") as process:
            assert process.stdout.readline() == f"waiting for another process that works in {wav}\n"
            assert unfinished.exists()
            os.kill(process.pid, signal.SIGINT)
            process.wait()
            assert process.returncode == 130
            assert unfinished.exists()
    make.prepare_songs(stem_files, wav, workers=1)
    assert not unfinished.exists()


@pytest.mark.parametrize("damage", BAD_SONGS, ids=lambda damage: damage.__name__)
def test_bad_song(tmp_path, write_song, real_track, monkeypatch, capsys, damage):
    songs, wav = tmp_path / "songs" / "train", tmp_path / "wav"
    for index in range(2):
        write_song(songs / f"good {index}", num_channels=1, seed=index)
    damage(songs, write_song, real_track)
    monkeypatch.setattr(sys, "argv", ["prepare", str(songs.parent), str(wav), "--workers", "1"])
    with pytest.raises(SystemExit) as ended:
        run_command(prepare.main)
    assert ended.value.code == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert line.startswith("error: song 'bad song'")
    assert BAD_SONGS[damage] in line
    assert "--skip-bad" in line
    assert not list(wav.glob("*/.*"))
    assert not list(wav.glob("*/bad song"))
    prepare.main([*sys.argv[1:], "--skip-bad"])
    assert "left out: song 'bad song'" in capsys.readouterr().out
    assert sorted(path.name for path in (wav / "train").iterdir()) == ["good 0", "good 1"]


def test_bad_song_met_by_a_worker(tmp_path, write_song, real_track, run):
    write_song(tmp_path / "songs" / "good song")
    not_a_number(tmp_path / "songs", write_song, real_track)
    outcome = run("pipelines.prepare", tmp_path / "songs", tmp_path / "wav", "--workers", "2")
    assert outcome.status == 2
    assert "Traceback" not in outcome.stderr
    assert outcome.stderr.splitlines()[-1].startswith("error: song 'bad song' has samples in bass that are no numbers")
    assert not list((tmp_path / "wav" / "train").glob(".*"))


def test_nothing_starts_when_something_bad_is_seen_beforehand(tmp_path, write_song, capsys):
    for name in ("a", "b", "c"):
        write_song(tmp_path / "songs" / name)
    (tmp_path / "songs" / "c" / "bass.wav").write_bytes(b"")
    with pytest.raises(UserError, match="bass.wav is empty"):
        make.prepare_songs(tmp_path / "songs", tmp_path / "wav")
    assert not list((tmp_path / "wav").iterdir())
    assert capsys.readouterr().out == ""


def test_unreadable_folder(tmp_path, write_song, monkeypatch, capsys):
    for name in ("a", "b"):
        write_song(tmp_path / "songs" / name)
    locked = tmp_path / "songs" / "b"
    locked.chmod(0)
    if os.geteuid() == 0:
        # Root may read everything.
        listdir = os.listdir

        def refuse(path):
            if pathlib.Path(path) == locked:
                raise PermissionError(13, "Permission denied", str(path))
            return listdir(path)

        monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(UserError, match="song 'b': cannot read the folder .* Permission denied"):
        make.prepare_songs(tmp_path / "songs", tmp_path / "wav")
    make.prepare_songs(tmp_path / "songs", tmp_path / "wav", skip_bad=True)
    assert "left out: song 'b'" in capsys.readouterr().out
    locked.chmod(0o755)


def test_a_stale_copy_of_a_song_that_went_bad_is_removed(tmp_path, write_song):
    songs = tmp_path / "songs"
    for name in ("a", "b"):
        write_song(songs / name)
    make.prepare_songs(songs, tmp_path / "wav")
    (songs / "b" / "bass.wav").write_bytes(b"RIFF")
    make.prepare_songs(songs, tmp_path / "wav", skip_bad=True)
    assert [path.name for path in (tmp_path / "wav" / "train").iterdir()] == ["a"]


def test_refuses_to_replace_what_it_did_not_make(tmp_path, write_song):
    write_song(tmp_path / "songs" / "a")
    mine = write_song(tmp_path / "wav" / "train" / "a")
    with pytest.raises(UserError, match="not made by pipelines.prepare"):
        make.prepare_songs(tmp_path / "songs", tmp_path / "wav")
    assert len(list(mine.iterdir())) == 5
    for theirs in ("[1]", "[]", "{}"):
        (mine / make.MANIFEST).write_text(theirs)
        with pytest.raises(UserError, match="not made by pipelines.prepare"):
            make.prepare_songs(tmp_path / "songs", tmp_path / "wav")
    with pytest.raises(UserError, match="choose another destination"):
        make.prepare_songs(tmp_path / "songs", tmp_path / "songs")


@pytest.mark.parametrize("first", ["abc", "d"])
def test_what_most_songs_have_does_not_depend_on_what_was_converted_before(tmp_path, write_song, first):
    songs, wav = tmp_path / "songs", tmp_path / "wav"
    for name in first:
        write_song(songs / name, SOURCES[name == "d" :])
    make.prepare_songs(songs, wav, workers=1)
    for name in {*"abcd"}.difference(first):
        write_song(songs / name, SOURCES[name == "d" :])
    with pytest.raises(UserError, match="song 'd' lacks vocals, which most songs have"):
        make.prepare_songs(songs, wav, workers=1)
    for _ in range(2):
        make.prepare_songs(songs, wav, skip_bad=True, workers=1)
        assert {path.name for path in (wav / "train").iterdir()} == {*"abc"}


@pytest.mark.parametrize(
    "source, destination",
    [("wav/train", "wav"), ("link", "wav"), ("songs", "songs/a/wav"), ("above/train/a", "above")],
)
def test_refuses_to_take_the_place_of_a_song(tmp_path, write_song, source, destination):
    write_song(tmp_path / "songs" / "a")
    make.prepare_songs(tmp_path / "songs", tmp_path / "wav")
    (tmp_path / "link").symlink_to("wav/train")
    write_song(tmp_path / "above" / "train" / "a" / "a")
    before = tree(tmp_path)
    with pytest.raises(UserError, match="a place of songs; choose another destination"):
        make.prepare_songs(tmp_path / source, tmp_path / destination, sample_rate=4000)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("refused_for", ["a bad song", "a full disk", "a song that breaks off"])
def test_old_copies_stay_until_new_ones_are_done(tmp_path, write_song, monkeypatch, refused_for):
    songs = tmp_path / "songs"
    for name in ("a", "b"):
        write_song(songs / name, subtype="FLOAT")
    make.prepare_songs(songs, tmp_path / "wav")
    before = tree(tmp_path / "wav")
    if refused_for == "a bad song":
        (songs / "b" / "bass.wav").write_bytes(b"")
    elif refused_for == "a full disk":
        monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    else:
        soundfile.write(songs / "a" / "bass.wav", np.full((4000, 2), np.nan), 8000, "FLOAT")
    with pytest.raises(UserError):
        make.prepare_songs(songs, tmp_path / "wav", sample_rate=16000, workers=1)
    assert tree(tmp_path / "wav") == before


def test_full_disk_is_said_before_the_start(stem_files, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(UserError, match=r"0.00 GB of free disk and the songs take 0.03 GB"):
        make.prepare_songs(stem_files, tmp_path / "wav")


def test_disk_that_fills_up(stem_files, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(UserError, match="cannot write"):
            make.prepare_songs(stem_files, tmp_path / "wav", workers=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert tree(tmp_path / "wav").keys() == {"test"}


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["SOURCE"], "destination"),
        (["SOURCE", "DEST", "--fast"], "--fast"),
        (["SOURCE", "DEST", "--sample-rate", "0"], "--sample-rate: '0' is no whole number above 0"),
        (["SOURCE", "DEST", "--sample-rate", "1000000000"], "is above 768000; give a smaller one"),
        (["SOURCE", "DEST", "--workers", "two"], "two"),
        (["SOURCE", "DEST"], "no such folder"),
        (["EMPTY", "DEST"], "no songs"),
        (["SONGS", "FILE"], "cannot write"),
    ],
)
def test_usage_errors_are_one_line(tmp_path, write_song, run, arguments, reason):
    write_song(tmp_path / "SONGS" / "a")
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "FILE").touch()
    outcome = run("pipelines.prepare", *(tmp_path / word if word.isupper() else word for word in arguments))
    assert outcome.status == 2
    assert outcome.stderr.startswith("error: ")
    assert outcome.stderr.count("\n") == 1
    assert reason in outcome.stderr
