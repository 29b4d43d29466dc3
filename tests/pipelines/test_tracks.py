import shutil

import numpy as np
import pytest
import soundfile

from pipelines.audio import reading
from pipelines.copies import make, tracks
from pipelines.copies.tracks import load_tracks
from pipelines.errors import UserError
from tests.pipelines.bad_songs import BAD_SONGS

SOURCES = ("vocals", "drums", "bass", "other")


@pytest.fixture(autouse=True)
def in_one_process(fresh_cache, monkeypatch):
    """Songs this short are converted sooner than a worker starts."""
    monkeypatch.setattr("pipelines.workers.num_cores", lambda: 1)


def test_streams_wav_as_it_is(tmp_path, write_song, fresh_cache, capsys):
    for name in ("train/a", "train/b", "valid/c", "test/d"):
        write_song(tmp_path / name)
    found = load_tracks(tmp_path, stems=SOURCES)
    assert {split: [track.name for track in found[split]] for split in found} == {
        "train": ["a", "b"],
        "valid": ["c"],
        "test": ["d"],
    }
    assert found["train"][0].files["bass"] == tmp_path / "train" / "a" / "bass.wav"
    assert not (fresh_cache / "prepared").exists()
    assert capsys.readouterr().out == ""


def test_converts_stem_files_once(tmp_path, real_track, fresh_cache, capsys):
    for split in ("train", "test"):
        (tmp_path / "musdb" / split).mkdir(parents=True)
        shutil.copyfile(real_track, tmp_path / "musdb" / split / "A.stem.mp4")
    found = load_tracks(tmp_path / "musdb", stems=("vocals", "drums"))
    assert [len(found[split]) for split in ("train", "valid", "test")] == [1, 0, 1]
    assert list(found["train"][0].files) == ["vocals", "drums", "mixture"]
    assert found["train"][0].is_wav
    assert "converting 2 songs" in capsys.readouterr().out
    assert load_tracks(tmp_path / "musdb", stems=("vocals", "drums")) == found
    assert capsys.readouterr().out == ""


def test_cached_copy_follows_its_source(tmp_path, write_song, fresh_cache):
    songs = tmp_path / "my songs"
    for seed, name in enumerate(("train/a", "train/b", "test/c")):
        write_song(songs / name, subtype="PCM_24", seed=seed)
    assert len(load_tracks(songs, stems=SOURCES)["train"]) == 1
    [copy] = (fresh_cache / "prepared").iterdir()
    assert copy.name.startswith("my songs-native-")
    # A song is gone, one has moved, one is new, one is another.
    shutil.rmtree(songs / "train" / "a")
    shutil.rmtree(songs / "train" / "b")
    (songs / "test" / "c").rename(songs / "train" / "c")
    write_song(songs / "train" / "b", subtype="PCM_24", num_samples=77)
    write_song(songs / "test" / "d", subtype="PCM_24")
    found = load_tracks(songs, stems=SOURCES)
    names = {track.name: split for split in found for track in found[split]}
    assert names.keys() == {"b", "c", "d"} and names["d"] == "test"
    [changed] = [track for split in found for track in found[split] if track.name == "b"]
    assert changed.num_samples == 77
    assert {path.name for path in copy.glob("*/*")} == {"b", "c", "d"}


def test_each_rate_has_its_copy(tmp_path, write_song, fresh_cache):
    write_song(tmp_path / "songs" / "a", sample_rate=16000, num_samples=1600)
    write_song(tmp_path / "songs" / "b", sample_rate=8000, num_samples=1600)
    with pytest.raises(UserError, match=r"different sample rates \(8000 Hz and 16000 Hz\); choose one"):
        load_tracks(tmp_path / "songs", stems=SOURCES)
    for rate, lengths in ((8000, {800, 1600}), (16000, {1600, 3200})):
        found = load_tracks(tmp_path / "songs", stems=SOURCES, sample_rate=rate)
        assert {track.num_samples for split in found for track in found[split]} == lengths
        assert {soundfile.info(track.files["bass"]).samplerate for split in found for track in found[split]} == {rate}
    assert len(list((fresh_cache / "prepared").iterdir())) == 2


def test_sources_that_stem_files_lack(tmp_path, real_track, monkeypatch):
    shutil.copyfile(real_track, tmp_path / "A.stem.mp4")
    # Said before anything is converted.
    monkeypatch.setattr(make, "prepared_copy", None)
    with pytest.raises(UserError, match="hold mixture, drums, bass, other, vocals, not piano"):
        load_tracks(tmp_path, stems=("vocals", "piano"))


@pytest.mark.parametrize("damage", BAD_SONGS, ids=lambda damage: damage.__name__)
def test_bad_song(tmp_path, write_song, real_track, capsys, damage):
    songs = tmp_path / "songs"
    for name in ("good 0", "good 1", "good 2"):
        write_song(songs / name, num_channels=1)
    damage(songs, write_song, real_track)
    with pytest.raises(UserError, match="song 'bad song'.*--skip-bad") as raised:
        load_tracks(songs, stems=SOURCES)
    assert BAD_SONGS[damage] in str(raised.value)
    assert "\n" not in str(raised.value)
    capsys.readouterr()
    found = load_tracks(songs, stems=SOURCES, skip_bad=True)
    assert sorted(track.name for split in found for track in found[split]) == ["good 0", "good 1", "good 2"]
    assert capsys.readouterr().out.count("left out: song 'bad song'") == 1


def test_recordings_are_decoded_once(tmp_path, monkeypatch):
    lengths, opened = {}, []
    for split in ("train", "valid", "test"):
        for number, source in enumerate(("speech", "noise")):
            path = tmp_path / split / source / f"{source}.{('mp3', 'ogg')[number]}"
            path.parent.mkdir(parents=True)
            soundfile.write(path, np.random.default_rng(number).uniform(-0.5, 0.5, 8000 * (number + 1)), 16_000)
            lengths[source] = soundfile.info(path).frames
    blocks = reading.Recording.blocks
    monkeypatch.setattr(reading.Recording, "blocks", lambda self: opened.append(self.name) or blocks(self))
    found = load_tracks(tmp_path, stems=list(lengths))
    assert sorted(opened) == sorted(str(path) for path in tmp_path.glob("*/*/*.???"))
    assert {stem: track.num_samples for track in found["train"] for stem in track.files} == lengths
    load_tracks(tmp_path, stems=list(lengths))
    assert len(opened) == 6


def test_every_song_is_bad(tmp_path, write_song):
    write_song(tmp_path / "my songs" / "a", ["vocals", "rest"])
    command = f"python -m pipelines.check '{tmp_path}/my songs' --sources {','.join(SOURCES)}"
    with pytest.raises(UserError, match=f"no song under .* can be used; `{command}` says why"):
        load_tracks(tmp_path / "my songs", stems=SOURCES, skip_bad=True)


def test_counts_the_other_bad_songs(tmp_path, write_song):
    for name in ("a", "b", "c"):
        write_song(tmp_path / name, ["vocals", "rest"])
    with pytest.raises(UserError, match=r"song 'a' lacks .* \(2 more: `python -m pipelines.check"):
        tracks.load_tracks(tmp_path, stems=SOURCES)


def test_the_folder_to_check_is_that_of_the_user_and_not_the_copy(tmp_path, write_song, real_track):
    for name in ("a", "b"):
        write_song(tmp_path / name, SOURCES[:3])
    shutil.copyfile(real_track, tmp_path / "c.stem.mp4")
    command = f"python -m pipelines.check {tmp_path} --sources {','.join(SOURCES)}"
    with pytest.raises(UserError, match=f"song 'a' lacks other; .*1 more: `{command}` lists them"):
        load_tracks(tmp_path, stems=SOURCES)


@pytest.mark.parametrize("name", ["x" * 255, "日本" * 42], ids=["of letters", "of wide ones"])
def test_the_name_of_the_data_may_be_as_long_as_the_file_system_takes(tmp_path, write_song, fresh_cache, name):
    write_song(tmp_path / name / "train" / "a", subtype="PCM_24")
    assert len(load_tracks(tmp_path / name, stems=SOURCES)["train"]) == 1
    recordings = tmp_path / "recordings" / name
    for split in ("train", "valid", "test"):
        for number, stem in enumerate(SOURCES):
            song = write_song(recordings / split / stem, [stem], subtype="PCM_24", seed=number)
            (song / "mixture.wav").unlink()
    assert [len(found) for found in load_tracks(recordings, stems=SOURCES).values()] == [len(SOURCES), 1, 1]
