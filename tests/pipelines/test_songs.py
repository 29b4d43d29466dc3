import email.message
import io
import json
import os
import pathlib
import re
import shutil
import zipfile

import pytest
import soundfile

from pipelines.audio import reading
from pipelines.copies.tracks import load_tracks
from pipelines.errors import UserError
from pipelines.songs import layouts
from pipelines.songs.layouts import ProbeIndex, SongError, find_songs, how_validation_was_chosen, read_track

SOURCES = ("vocals", "drums", "bass", "other")
needs_ffmpeg = pytest.mark.skipif(
    not (shutil.which("ffmpeg") and shutil.which("ffprobe")), reason="musdb needs ffmpeg and ffprobe"
)


def make_names(root, names):
    """Makes songs of which only the names matter."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith((".mp4", ".wav", ".flac")):
            path.touch()
        else:
            path.mkdir()
            (path / "vocals.wav").touch()


def splits(root):
    return {song.name: song.split for song in find_songs(root)}


@pytest.mark.parametrize(
    "names, expected",
    [
        (["train/A.stem.mp4", "valid/B.stem.mp4", "test/C.stem.mp4"], {"A": "train", "B": "valid", "C": "test"}),
        (["train/Ä b", "validation/日本", "test/c.d"], {"Ä b": "train", "日本": "valid", "c.d": "test"}),
        (["A", "B.stem.mp4", "valid/C", "test/D"], {"A": "train", "B": "train", "C": "valid", "D": "test"}),
        (["test/A", "test/B"], {"A": "test", "B": "test"}),
        (["A", ".hidden", "valid/._B.stem.mp4", "valid/C"], {"A": "train", "C": "valid"}),
        (["only one"], {"only one": "train"}),
        # Two names for one song: the folder needs no decoding.
        (["A", "A.stem.mp4", "valid/B"], {"A": "train", "B": "valid"}),
    ],
)
def test_layouts(tmp_path, names, expected):
    make_names(tmp_path, names)
    (tmp_path / "notes.txt").touch()
    (tmp_path / "pictures").mkdir()
    assert splits(tmp_path) == expected


def test_songs_are_files_or_folders(tmp_path):
    make_names(tmp_path, ["train/A", "train/A.stem.mp4", "train/B.stem.mp4", "valid/C"])
    (tmp_path / "train" / "A" / "._vocals.wav").touch()
    (tmp_path / "train" / "A" / "Drums.FLAC").touch()
    first, second, _ = find_songs(tmp_path)
    assert (first.made_stems, second.made_stems) == ((), layouts.STEM_STREAMS)
    assert set(first.files()) == {"vocals", "Drums"}
    assert second.files() == {}


@pytest.mark.parametrize(
    "names",
    [
        ("A", "train/A"),
        ("A.stem.mp4", "train/A"),
        ("valid/A", "validation/A"),
        ("noisy_a/A.wav", "noisy_b/A.wav"),
        ("noisy_a/A.flac", "noisy_a/A.wav"),
        ("noisy_a/A.wav", "A.stem.mp4"),
    ],
)
def test_two_songs_of_one_name_are_named(tmp_path, names):
    make_names(tmp_path, ["clean_a/A.wav", "clean_b/A.wav", *names])
    first, second = (re.escape(str(tmp_path / name)) for name in names)
    with pytest.raises(UserError, match=f"{first} and {second} are two songs of one name, .*; rename one of the two"):
        find_songs(tmp_path)


def test_official_validation_songs(tmp_path):
    make_names(tmp_path, ["train/Actions - One Minute Smile", *(f"train/{index}" for index in range(20)), "test/a"])
    found = find_songs(tmp_path)
    assert [song.name for song in found if song.split == "valid"] == ["Actions - One Minute Smile"]
    assert how_validation_was_chosen(found, tmp_path) == "MUSDB18's official list"


@needs_ffmpeg
def test_official_names_are_musdbs(tmp_path):
    import musdb

    assert layouts._official_validation_names() == set(musdb.DB(root=str(tmp_path)).setup["validation_tracks"])


@needs_ffmpeg
def test_finds_what_musdb_finds(openmsx):
    import musdb

    expected = {track.name: track.subset for track in musdb.DB(root=str(openmsx), subsets=["test"]).tracks}
    found = find_songs(openmsx)
    assert {song.name: song.split for song in found if song.split == "test"} == expected
    names = {path.name.removesuffix(".stem.mp4") for path in (openmsx / "train").iterdir()}
    assert {song.name for song in found if song.split != "test"} == names


def test_hashed_validation_songs_stay_when_songs_are_added(tmp_path):
    make_names(tmp_path, (f"train/song {index}" for index in range(0, 400, 2)))
    before = splits(tmp_path)
    assert 0.08 < list(before.values()).count("valid") / len(before) < 0.22
    assert how_validation_was_chosen(find_songs(tmp_path), tmp_path).startswith("training songs, chosen by a hash")
    make_names(tmp_path, (f"train/song {index}" for index in range(1, 400, 2)))
    after = splits(tmp_path)
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize("number", range(1, 8))
def test_a_few_songs_keep_one_for_validation_and_one_for_training(tmp_path, monkeypatch, number):
    for seed, share in enumerate((0.0, 0.15, 1.0)):
        monkeypatch.setattr(layouts, "VALIDATION_SHARE", share)
        make_names(tmp_path / str(seed), (f"train/{seed} {index}" for index in range(number)))
        found = list(splits(tmp_path / str(seed)).values())
        assert "train" in found
        assert ("valid" in found) == (number > 1)


@pytest.mark.parametrize(
    "names, choice", [(["valid/a"], "the songs in the folder valid"), (["test/a"], "there are none")]
)
def test_how_validation_was_chosen(tmp_path, names, choice):
    # The folder's own name says nothing about its songs.
    root = tmp_path / "valid"
    make_names(root, names)
    assert how_validation_was_chosen(find_songs(root), root).startswith(choice)


@pytest.mark.parametrize("names, reason", [(None, "no such folder"), ([], "no songs under")])
def test_nothing_found(tmp_path, names, reason):
    if names is not None:
        (tmp_path / "songs").mkdir()
    with pytest.raises(UserError, match=reason):
        find_songs(tmp_path / "songs")


def test_reads_a_track(tmp_path, write_song):
    write_song(tmp_path / "test" / "speech song", ["speech", "noise", "unused"], num_samples=123, sample_rate=16000)
    [song] = find_songs(tmp_path)
    track = read_track(song, ["noise", "speech"], reading.measure)
    assert list(track.files) == ["noise", "speech", "mixture"]
    assert (track.name, track.split, track.sample_rate, track.num_samples) == ("speech song", "test", 16000, 123)
    assert track.is_wav and track.streamable


@pytest.mark.parametrize(
    "subtype, suffix, is_wav, streamable",
    [("PCM_16", ".wav", True, True), ("PCM_16", ".flac", False, True), ("PCM_24", ".wav", False, False)],
)
def test_what_can_be_streamed(tmp_path, write_song, subtype, suffix, is_wav, streamable):
    write_song(tmp_path / "a", subtype=subtype, suffix=suffix)
    track = read_track(find_songs(tmp_path)[0], SOURCES, reading.measure)
    assert (track.is_wav, track.streamable) == (is_wav, streamable)


def test_missing_source_names_what_is_there(tmp_path, write_song):
    write_song(tmp_path / "a b", ["vocals", "rest"])
    with pytest.raises(SongError, match=r"song 'a b' lacks drums, bass; it holds mixture, rest, vocals: rename"):
        read_track(find_songs(tmp_path)[0], ["vocals", "drums", "bass"], reading.measure)


def test_index_reads_only_what_changed(tmp_path, write_song, fresh_cache, monkeypatch):
    song = write_song(tmp_path / "a", num_samples=100)
    index = ProbeIndex(tmp_path)
    assert index.probe(song / "bass.wav").num_samples == 100
    index.probe(song / "drums.wav")
    index.save()
    probed = []
    measure = reading.measure
    monkeypatch.setattr(
        reading, "measure", lambda path, **options: probed.append(path.name) or measure(path, **options)
    )
    soundfile.write(song / "bass.wav", [0.0] * 50, 8000, "PCM_16")
    index = ProbeIndex(tmp_path)
    assert index.probe(song / "bass.wav").num_samples == 50
    assert index.probe(song / "drums.wav").num_samples == 100
    assert probed == ["bass.wav"]
    os.utime(song / "drums.wav", ns=(1, 1))
    ProbeIndex(tmp_path).probe(song / "drums.wav")
    assert probed == ["bass.wav", "drums.wav"]


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"a": 1}'])
def test_damaged_index_is_built_again(tmp_path, write_song, fresh_cache, damage):
    song = write_song(tmp_path / "a", num_samples=100)
    index = ProbeIndex(tmp_path)
    index.probe(song / "bass.wav")
    index.save()
    [file] = (fresh_cache / "index").iterdir()
    file.write_text(damage)
    assert ProbeIndex(tmp_path).probe(song / "bass.wav").num_samples == 100


def test_an_index_that_cannot_be_kept_is_not_needed(tmp_path, write_song, monkeypatch):
    song = write_song(tmp_path / "a", num_samples=100)
    monkeypatch.setenv("SEPNET_CACHE", str(song / "bass.wav"))
    index = ProbeIndex(tmp_path)
    assert index.probe(song / "bass.wav").num_samples == 100
    index.save()


def test_two_files_for_one_stem_are_named(tmp_path, write_song):
    song = write_song(tmp_path / "a")
    shutil.copyfile(song / "bass.wav", song / "bass.flac")
    with pytest.raises(SongError, match="song 'a' has bass.flac and bass.wav; keep one of the two"):
        find_songs(tmp_path)[0].files()


def test_what_systems_leave_is_no_song(tmp_path, write_song):
    write_song(tmp_path / "...Baby One More Time")
    for name in ("._a song", "__MACOSX", ".Trash"):
        write_song(tmp_path / name)
    (tmp_path / "._b.stem.mp4").touch()
    (tmp_path / "...Baby One More Time" / "._bass.wav").touch()
    [song] = find_songs(tmp_path)
    assert set(song.files()) == {*SOURCES, "mixture"}


def test_names_may_be_any_bytes(tmp_path, write_song, fresh_cache, run):
    names = [os.fsdecode(b"caf\xe9"), "a [b] $x # %d: [bold]", "two\nlines", "é" * 127]
    for number, name in enumerate(names):
        # 24 bits have to be converted, into folders of the same names.
        write_song(tmp_path / "songs" / name, subtype="PCM_24" if number % 2 else "PCM_16", seed=number)
    tracks = load_tracks(tmp_path / "songs", stems=SOURCES)
    assert {track.name for split in tracks.values() for track in split} == set(names)
    from pipelines.batches.dataset import training_batches

    batches = training_batches(
        tracks["train"], stems=SOURCES, segment_samples=100, batch_size=2, num_channels=2, seed=0
    )
    next(iter(batches))
    assert run("pipelines.check", tmp_path / "songs", "--all").status == 0
    printed = run("pipelines.check", tmp_path / "songs", "--json").stdout
    assert {song["name"] for song in json.loads(printed)["songs"]} == set(names)


def test_no_start_measures_what_one_before_it_has_measured(tmp_path, write_song, fresh_cache, monkeypatch):
    first = write_song(tmp_path / "songs" / "0", num_samples=10)
    for number in range(1, 5):
        shutil.copytree(first, tmp_path / "songs" / str(number))
    measured = []
    measure = reading.measure

    def measure_until_ctrl_c(path, **options):
        if len(measured) == 7:
            raise KeyboardInterrupt
        measured.append(path)
        return measure(path, **options)

    monkeypatch.setattr(reading, "measure", measure_until_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        load_tracks(tmp_path / "songs", stems=SOURCES)
    monkeypatch.setattr(reading, "measure", lambda path, **options: measured.append(path) or measure(path, **options))
    for _ in range(2):
        assert sum(map(len, load_tracks(tmp_path / "songs", stems=SOURCES).values())) == 5
        assert len(measured) == 5 * len((*SOURCES, "mixture"))


@needs_ffmpeg
def test_preview_is_downloaded_once(fresh_cache, real_track, monkeypatch):
    import musdb

    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.write(real_track, "train/A.stem.mp4")
        file.write(real_track, "test/B.stem.mp4")
    archive.seek(0)
    archive.info = email.message.Message
    monkeypatch.setattr(musdb, "urlopen", lambda request: archive)
    monkeypatch.chdir(fresh_cache.parent)
    folder = layouts.data_folder(pathlib.Path("musdb18-7s"))
    assert splits(folder) == {"A": "train", "B": "test"}
    monkeypatch.setattr(musdb, "urlopen", None)
    assert layouts.data_folder(pathlib.Path("musdb18-7s")) == folder
    assert layouts.data_folder(fresh_cache) == fresh_cache


@needs_ffmpeg
def test_preview_without_internet(fresh_cache, monkeypatch):
    import urllib.error

    import musdb

    def refuse(request):
        raise urllib.error.URLError("Network is unreachable")

    monkeypatch.setattr(musdb, "urlopen", refuse)
    with pytest.raises(UserError, match="cannot download musdb18-7s: Network is unreachable"):
        layouts.download_preview(fresh_cache / "preview")
    assert list(fresh_cache.iterdir()) == []


def test_preview_without_ffmpeg(run, fresh_cache):
    outcome = run("pipelines.check", "musdb18-7s", PATH="")
    assert outcome.status == 2
    assert outcome.stderr.startswith("error: ")
    assert "needs ffmpeg and ffprobe" in outcome.stderr
    assert outcome.stderr.count("\n") == 1
