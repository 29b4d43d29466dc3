"""Recordings in a folder for each source: found, held out, mixed once for validation, and at random for training.

Which file a sample is from is written in it: the left channel against the right one, whatever the gain.
"""

import json
import os
import re
import resource
import shutil

import numpy as np
import pytest
import soundfile

from pipelines import check
from pipelines.copies import mixtures
from pipelines.copies.tracks import load_tracks
from pipelines.errors import UserError
from pipelines.songs.recordings import find_recordings
from tests.pipelines.test_dataset import READERS, take

SOURCES = ("speech", "noise")
RATE = 8000
FULL_SCALE = 32_768


@pytest.fixture(autouse=True)
def in_one_process(monkeypatch, fresh_cache):
    """Files this short are converted sooner than a worker starts, and fill mixtures that are as short."""
    monkeypatch.setattr("pipelines.workers.num_cores", lambda: 1)
    monkeypatch.setattr(mixtures, "MIXTURE_SECONDS", 1)


def write(path, samples, rate=RATE, subtype="PCM_16"):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype)
    return path


def marked(number, num_samples=9000):
    """Samples `[num_samples, 2]` that tell their number, 1 to 99."""
    return np.tile(np.array([[100 * 80, number * 80]], np.int16), (num_samples, 1))


def numbers_in(samples):
    """The numbers of all files that samples `[..., 2]` are from."""
    left, right = samples.reshape(-1, 2).T.astype(float)
    return {round(100 * ratio) for ratio in np.unique(right[left != 0] / left[left != 0])}


@pytest.fixture
def data(tmp_path):
    """A folder of twelve files of speech, 1 to 12, and nine of noise, 31 to 39, in folders within folders."""
    for number in range(1, 13):
        write(tmp_path / "data" / "speech" / f"voice {number % 3}" / f"{number}.wav", marked(number))
    for number in range(31, 40):
        write(tmp_path / "data" / "noise" / f"{number}.wav", marked(number))
    return tmp_path / "data"


def load(root, **options):
    return load_tracks(root, stems=SOURCES, **options)


def number_of(path):
    return int(path.name.removesuffix(".wav"))


def splits(root):
    return {found.name: found.split for found in find_recordings(root, SOURCES)}


def read(track, stem):
    samples, _ = soundfile.read(track.files[stem], dtype="int16", always_2d=True)
    return samples


def ratio_db(signal, noise):
    return 10 * np.log10(np.square(signal, dtype=float).sum() / np.square(noise, dtype=float).sum())


def test_some_of_each_source_are_held_out_and_stay_so_when_files_are_added(data):
    before = splits(data)
    for source, count in (("speech", 12), ("noise", 9)):
        found = [split for name, split in before.items() if name.startswith(source)]
        assert len(found) == count and {"train", "valid", "test"} == set(found) and found.count("train") > count / 2
    for number in range(50, 90):
        write(data / "speech" / "more" / f"{number}.wav", marked(number))
    after = splits(data)
    assert {name: after[name] for name in before} == before
    assert 0.05 < list(after.values()).count("test") / len(after) < 0.3


def test_folders_of_splits_are_taken_as_they_are(data):
    write(data / "test" / "speech" / "a" / "70.flac", marked(70))
    write(data / "test" / "noise" / "71.wav", marked(71))
    found = splits(data)
    assert {name for name, split in found.items() if split == "test"} == {"test/speech/a/70.flac", "test/noise/71.wav"}
    assert {split for name, split in found.items() if not name.startswith("test/")} == {"train", "valid"}
    for source, number in (("speech", 72), ("noise", 73)):
        write(data / "valid" / source / f"{number}.wav", marked(number))
        # What is left is for training, be it a single file.
        for file in list((data / source).rglob("*.wav"))[1:]:
            file.unlink()
    assert sorted(splits(data).values()) == ["test"] * 2 + ["train"] * 2 + ["valid"] * 2


def test_hidden_files_are_passed_over_and_links_are_followed(data, tmp_path):
    write(tmp_path / "elsewhere" / "80.wav", marked(80))
    (data / "noise" / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("._80.wav", ".hidden/80.wav", "__MACOSX/80.wav"):
        write(data / "noise" / name, marked(81))
    (data / "noise" / "notes.txt").write_text("notes")
    (data / ".speech").mkdir()
    assert set(splits(data)) == {
        *(file.relative_to(data).as_posix() for file in data.rglob("[0-9]*.wav") if file.parent.name[0] not in "._"),
        "noise/link/80.wav",
    }


def test_songs_stay_songs(tmp_path, write_song):
    for name in ("a", "b"):
        write_song(tmp_path / "songs" / name, SOURCES)
    # A folder that has the name of a stem, and one of other sounds.
    for name in (*SOURCES, "music"):
        write(tmp_path / "songs" / name / "1.wav", marked(1))
    assert find_recordings(tmp_path / "songs", SOURCES) == []
    assert find_recordings(tmp_path / "songs", ("..", "speech")) == []
    for name in ("a", "b"):
        shutil.rmtree(tmp_path / "songs" / name)
    with pytest.raises(UserError, match="too few recordings of speech"):
        find_recordings(tmp_path / "songs", SOURCES)


def test_a_folder_that_cannot_be_looked_into_is_no_song(data, monkeypatch):
    locked = data / "lost+found"
    locked.mkdir()
    listdir, status = os.listdir, os.stat

    def refuse(path, **_):
        # Root may look into everything.
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", lambda path: refuse(path) if path == locked else listdir(path))
    monkeypatch.setattr(
        os, "stat", lambda path, **options: (refuse if f"{locked}/" in str(path) else status)(path, **options)
    )
    assert splits(data)


def test_a_source_without_files_or_with_too_few_is_refused(data):
    (data / "test" / "speech").mkdir(parents=True)
    write(data / "test" / "noise" / "70.wav", marked(70))
    with pytest.raises(UserError, match=r"test/speech holds no recordings; put audio files of speech there"):
        load(data)
    shutil.rmtree(data / "test")
    for file in list((data / "noise").iterdir())[1:]:
        file.unlink()
    with pytest.raises(UserError, match=r"too few recordings of noise \(1\) to hold some out; add .*test/noise and"):
        load(data)
    next((data / "noise").iterdir()).unlink()
    with pytest.raises(UserError, match=r"/noise holds no recordings; put audio files of noise there"):
        load(data)


def test_one_file_under_two_sources_is_refused(data):
    shutil.copyfile(data / "speech" / "voice 1" / "1.wav", data / "noise" / "other name.wav")
    with pytest.raises(UserError, match="recording 'speech/voice 1/1.wav' and recording 'noise/other name.wav'"):
        load(data)


def test_mixtures_hold_what_is_held_out_and_nothing_else(data):
    found = load(data)
    held = {split: [r for r in find_recordings(data, SOURCES) if r.split == split] for split in ("valid", "test")}
    for split, recordings in held.items():
        assert found[split] and all(not track.is_recording for track in found[split])
        for source in SOURCES:
            heard = set().union(*(numbers_in(read(track, source)) for track in found[split]))
            named = {number_of(recording.path) for recording in recordings if recording.source == source}
            # The first source decides how many there are.
            assert heard == named if source == "speech" else heard <= named
    trained = {number_of(path) for track in found["train"] for path in track.files.values()}
    assert trained == {*range(1, 13), *range(31, 40)} - {
        number_of(recording.path) for recordings in held.values() for recording in recordings
    }
    assert {track.num_samples for track in (*found["valid"], *found["test"])} == {mixtures.MIXTURE_SECONDS * RATE}


def test_ratios_of_mixtures_are_exact_and_spread_over_the_range(data):
    for number in range(10):
        write(data / "valid" / "speech" / f"{number}.wav", marked(7) // (1 + number % 5))
        write(data / "valid" / "noise" / f"{number}.wav", marked(50)[number:])
    for snr_db in ((-5.0, 20.0), (0.0, 1.0)):
        tracks = load(data, snr_db=snr_db)["valid"]
        assert len(tracks) == 11
        measured = [ratio_db(read(track, "speech"), read(track, "noise")) for track in tracks]
        low, high = snr_db
        np.testing.assert_allclose(measured, low + (high - low) * (np.arange(11) + 0.5) / 11, atol=0.1)
        for track in tracks:
            total = sum(read(track, stem).astype(int) for stem in SOURCES)
            assert np.abs(total).max() < FULL_SCALE


def test_of_several_stems_the_first_source_is_the_signal(data):
    for number in range(3):
        write(data / "music" / f"{number}.wav", marked(90 + number) // 3)
    for num_first, sides in ((1, (slice(0, 1), slice(1, 3))), (2, (slice(0, 2), slice(2, 3)))):
        found = load_tracks(data, stems=("speech", "music", "noise"), num_first=num_first, snr_db=(3.0, 3.0))
        stems = np.stack([read(found["test"][0], stem) for stem in ("speech", "music", "noise")]).astype(float)
        assert ratio_db(*(stems[side].sum(axis=0) for side in sides)) == pytest.approx(3.0, abs=0.1)


def test_what_would_be_too_loud_is_made_softer_all_alike(data):
    for file in data.rglob("*.wav"):
        write(file, np.clip(marked(number_of(file)) * 4.0, -FULL_SCALE, FULL_SCALE - 1).astype(np.int16))
    for track in load(data, snr_db=(-20.0, -20.0))["test"]:
        speech, noise = (read(track, stem).astype(int) for stem in SOURCES)
        assert FULL_SCALE - 10 < np.abs(speech + noise).max() < FULL_SCALE
        assert ratio_db(speech, noise) == pytest.approx(-20, abs=0.1)


def test_silence_is_left_as_it_is(data):
    for file in (data / "noise").iterdir():
        write(file, np.zeros((9000 + number_of(file), 2), np.int16))
    for track in load(data)["valid"]:
        assert not read(track, "noise").any()
        assert set(np.unique(read(track, "speech")[:, 0])) == {8000}


def test_a_long_recording_takes_turns_with_the_others(data):
    for number in range(4):
        write(data / "valid" / "speech" / f"{number}.wav", marked(number + 1, (3 if number else 100) * RATE))
        write(data / "valid" / "noise" / f"{number}.wav", marked(number + 50, 2 * RATE))
    tracks = load(data)["valid"]
    assert len(tracks) == mixtures.MOST_MIXTURES
    for source in SOURCES:
        assert len(set().union(*(numbers_in(read(track, source)) for track in tracks[:4]))) == 4


def test_mixtures_are_made_once_and_again_when_files_change(data):
    def times():
        return [path.stat().st_mtime_ns for track in load(data)["valid"] for path in track.files.values()]

    before = times()
    assert times() == before
    [held_out, *_] = [found for found in find_recordings(data, SOURCES) if found.split == "valid"]
    write(held_out.path, marked(99, 9001))
    assert times() != before
    assert 99 in set().union(*(numbers_in(read(track, held_out.source)) for track in load(data)["valid"]))
    # What has broken off is made again, too.
    [manifest] = load(data)["valid"][0].files["speech"].parents[1].glob("*.json")
    manifest.write_text("{")
    assert load(data)["valid"] and json.loads(manifest.read_text())


def test_a_disk_that_fills_up_while_mixtures_are_made(data, fresh_cache):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(UserError, match="cannot write .*make room"):
            load(data)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [list(folder.iterdir()) for folder in (fresh_cache / "mixtures").iterdir()] == [[]]


def test_rates_and_channels_and_formats_become_one_rate(data):
    tone = np.sin(np.arange(16_000) / 5) / 4
    written = {
        "noise/a.flac": (tone, 16_000, "PCM_16"),
        "noise/b.ogg": (np.stack([tone, tone], axis=1), 44_100, "VORBIS"),
        "noise/c.wav": (tone, 16_000, "FLOAT"),
        "noise/d.wav": (tone, 16_000, "PCM_16"),
    }
    for name, arguments in written.items():
        write(data / name, *arguments)
    with pytest.raises(UserError, match=r"the recordings under .* \(8000 Hz and 16000 Hz and 44100 Hz\); choose one"):
        load(data)
    found = load(data, sample_rate=16_000)
    tracks = [track for split in found.values() for track in split]
    assert {track.sample_rate for track in tracks} == {16_000}
    assert {soundfile.info(os.fsencode(path)).samplerate for track in tracks for path in track.files.values()} == {
        16_000
    }
    training = {track.name: track for track in found["train"]}
    # What can be read as it is stays where it is; of the rest, samples are those that soxr gives.
    kept = [name for name in ("noise/a.flac", "noise/d.wav") if name in training]
    assert kept and all(training[name].files["noise"] == data / name for name in kept)
    import soxr

    [name, *_] = [name for name in training if name.startswith("speech/")]
    original, _ = soundfile.read(data / name, dtype="float32")
    expected = np.rint(soxr.resample(original, RATE, 16_000) * FULL_SCALE)
    np.testing.assert_allclose(read(training[name], "speech"), expected, atol=1)


def test_check_says_what_there_is_and_what_is_wrong(data, capsys):
    tone = np.sin(np.arange(48_000) / 5) / 4
    write(data / "noise" / "other.ogg", np.stack([tone, tone], axis=1), 48_000, "VORBIS")
    write(data / "noise" / "silent.wav", np.zeros(800))

    def check_json():
        status = check.main([str(data), "--sources", "speech,noise", "--json"])
        return status, json.loads(capsys.readouterr().out)

    # One without recordings says nothing.
    (data / "valid").mkdir()
    status, document = check_json()
    assert status == 0 and document["is_good"] and document["validation"] == "chosen by a hash of their paths"
    recordings = find_recordings(data, SOURCES)
    assert set(document["splits"]) == {
        f"{split} {source}" for split in ("train", "valid", "test") for source in SOURCES
    }
    for name, summary in document["splits"].items():
        files = [each.path for each in recordings if f"{each.split} {each.source}" == name]
        infos = [soundfile.info(file) for file in files]
        assert summary["songs"] == len(files)
        assert summary["seconds"] == pytest.approx(sum(info.duration for info in infos))
        assert summary["sample_rates"] == sorted({info.samplerate for info in infos})
        assert summary["num_channels"] == sorted({info.channels for info in infos})
    assert [song["notes"] for song in document["songs"] if song["name"] == "noise/silent.wav"] == [["silent: noise"]]
    assert "--sample-rate 8000" in document["suggestions"][0]

    shutil.copyfile(data / "speech" / "voice 1" / "1.wav", data / "noise" / "again.wav")
    (data / "noise" / "broken.wav").write_text("no sound " * 100)
    status, document = check_json()
    assert status == 1
    [problem] = document["problems"]
    assert {"recording 'speech/voice 1/1.wav'", "recording 'noise/again.wav'"} == set(
        re.findall("recording '.*?'", problem)
    )
    assert [song["name"] for song in document["songs"] if song["problems"]] == ["noise/broken.wav"]
    assert check.main([str(data), "--sources", "speech,noise"]) == 1
    printed = capsys.readouterr().out
    assert "valid noise" in printed and "1 of 25 recordings have problems" in printed

    shutil.rmtree(data / "noise")
    (data / "noise").mkdir()
    status, document = check_json()
    assert status == 1 and "noise holds no recordings" in document["problems"][0]


@pytest.mark.parametrize("is_bad_at_once", [True, False])
def test_bad_recordings_are_named_or_left_out(data, capsys, is_bad_at_once):
    bad = data / "noise" / "bad.wav"
    if is_bad_at_once:
        bad.write_text("no sound " * 100)
    else:
        write(bad, np.full((900, 1), np.nan), subtype="FLOAT")
    with pytest.raises(UserError, match="recording 'noise/bad.wav'.*--skip-bad") as raised:
        load(data)
    assert "\n" not in str(raised.value)
    capsys.readouterr()
    found = load(data, skip_bad=True)
    assert capsys.readouterr().out.count("left out: recording 'noise/bad.wav'") == 1
    assert "noise/bad.wav" not in {track.name for track in found["train"]}


def test_copies_follow_their_recordings(data, fresh_cache):
    for file in data.rglob("*.wav"):
        write(file, marked(number_of(file)), subtype="PCM_24")
    first = load(data)["train"]
    copies = {track.name: list(track.files.values())[0] for track in first}
    assert all(fresh_cache in path.parents for path in copies.values())
    changed, gone = list(copies)[:2]
    write(data / changed, marked(95, 100), subtype="PCM_24")
    (data / gone).unlink()
    lengths = {track.name: track.num_samples for track in load(data)["train"]}
    assert lengths[changed] == 100 and gone not in lengths
    assert not copies[gone].exists() and copies[changed].exists()


def test_one_seed_gives_the_same_batches_with_both_readers(data):
    for number in range(3):
        write(data / "noise" / f"{60 + number}.wav", marked(60 + number)[:, :1])
    tracks = load(data)["train"]
    expected = take(6, tracks, reader="portable")
    assert expected.shape == (24, 2, 50, 2)
    np.testing.assert_array_equal(take(6, tracks, reader=READERS[-1]), expected)
    # A run that has stopped after four batches goes on with the fifth.
    np.testing.assert_array_equal(take(2, tracks, reader="portable", first_step=4), expected[16:])


def test_every_stem_has_its_own_recording_and_place(tmp_path):
    for source, base in (("speech", 1), ("noise", 31)):
        for number in range(base, base + 8):
            counted = np.arange(1, 301, dtype=np.int16)
            write(
                tmp_path / "data" / source / f"{number}.wav",
                np.stack([counted, np.full(300, number, np.int16)], axis=1),
            )
    tracks = load(tmp_path / "data")["train"]
    names = {(source, number_of(path)) for track in tracks for source, path in track.files.items()}
    examples = take(100, tracks).astype(int)
    np.testing.assert_array_equal(np.diff(examples[..., 0], axis=2), 1)
    drawn = examples[:, :, 0]
    assert {(source, number) for column, source in enumerate(SOURCES) for number in drawn[:, column, 1]} == names
    # Neither files nor places of the two have to do with each other.
    for index in (0, 1):
        assert abs(np.corrcoef(drawn[:, 0, index], drawn[:, 1, index])[0, 1]) < 0.2
    assert drawn[..., 0].min() < 10 and drawn[..., 0].max() > 241


@pytest.mark.parametrize(("reader", "margin"), [("portable", 0), (READERS[-1], 30)])
def test_a_short_recording_lies_anywhere_in_the_segment(tmp_path, reader, margin):
    counted = np.stack([np.arange(1, 21, dtype=np.int16)] * 2, axis=1)
    for source in SOURCES:
        for split in ("train", "valid", "test"):
            write(tmp_path / "data" / split / source / "1.wav", counted * (1 if source == "speech" else -1))
    firsts = set()
    examples = take(30, load(tmp_path / "data")["train"], reader=reader, margin_samples=margin)
    for example in examples.reshape(-1, 50 + 2 * margin, 2):
        [heard] = np.nonzero(example[:, 0])
        firsts.add(heard[0] - margin)
        np.testing.assert_array_equal(np.abs(example[heard, 1]), np.arange(1, 21))
    assert firsts == set(range(31))


def test_recordings_are_drawn_in_proportion_to_their_length(tmp_path):
    lengths = np.array([1000, 3000, 6000])
    for source in SOURCES:
        for split in ("valid", "test"):
            write(tmp_path / "data" / split / source / "9.wav", marked(9 if source == "speech" else 8))
        for number, length in enumerate(lengths):
            write(tmp_path / "data" / source / f"{number}.wav", marked(number + 1, length + (source == "noise")))
    examples = take(375, load(tmp_path / "data")["train"])
    for column in range(2):
        drawn = np.rint(100 * examples[:, column, 0, 1] / examples[:, column, 0, 0]).astype(int)
        expected = 1500 * lengths / lengths.sum()
        # As of songs: one in a thousand fair draws has a chi-squared above 13.8.
        assert np.sum((np.bincount(drawn, minlength=4)[1:] - expected) ** 2 / expected) < 13.8
