"""Stem sets: whole after kills, for several writers, in every layout and place."""

import concurrent.futures
import dataclasses
import hashlib
import io
import json
import pathlib
import pickle
import resource
import signal
import tarfile
import threading

import fsspec
import numpy as np
import pyarrow.parquet
import pytest
import soundfile
from fsspec.implementations.local import LocalFileOpener

from pipelines.captioned.collection import read_collection
from pipelines.captioned.songs import CaptionedSong
from pipelines.errors import UserError
from sepnet.stem_sets.destination import Destination
from sepnet.stem_sets.overview import read_overview
from sepnet.stem_sets.settings import StemSetSettings, songs_digest
from sepnet.stem_sets.stem_set import StemSet
from tests.sepnet.stem_sets.clips import (
    CAPTION,
    clips,
    failures,
    row,
    rows_of,
    run_python,
    samples,
    settings,
    start_python,
    tree,
    write,
)

NUM_CLIPS = 15


@pytest.fixture(scope="module", params=[("webdataset", "flac"), ("folder", "opus")], ids="-".join)
def whole(request, tmp_path_factory):
    """The settings of a set, and its files as an undisturbed run writes them."""
    layout, audio_format = request.param
    chosen = settings(layout=layout, audio_format=audio_format)
    folder = tmp_path_factory.mktemp("whole") / "set"
    write(StemSet.create_or_continue(str(folder), chosen))
    return chosen, tree(folder)


def read_files(address: str) -> dict[str, bytes]:
    system, root = fsspec.url_to_fs(address)
    system.invalidate_cache()
    return {path[len(root) + 1 :]: system.cat_file(path) for path in system.find(root)}


def test_audio_and_manifest_agree(whole):
    chosen, files = whole
    table = rows_of(files["manifest.parquet"])
    assert len({clip["id"] for clip in table}) == NUM_CLIPS
    expected = [row(song, clip)["id"] for song in range(5) for clip in range(3)]
    assert [clip["id"] for clip in table] == expected
    for index, clip in enumerate(table):
        song, number = divmod(index, 3)
        content = files[clip["file"]]
        caption = files.get(clip["file"].removesuffix(chosen.audio_format) + "txt")
        if clip["member"]:
            with tarfile.open(fileobj=io.BytesIO(content)) as tar:
                content = tar.extractfile(clip["member"]).read()
                key = clip["member"].partition(".")[0]
                caption = tar.extractfile(f"{key}.txt").read()
                beside = json.load(tar.extractfile(f"{key}.json"))
            assert beside == {name: clip[name] for name in beside}
            assert {"id", "caption", "song_caption", "kind", "sources", "passes"} <= set(beside)
        assert hashlib.sha256(content).hexdigest() == clip["sha256"]
        assert caption.decode() == clip["caption"] == f"{CAPTION}, vocals"
        given = row(song, number)
        assert {name: clip[name] for name in given if name != "sample_rate"} == {
            name: value for name, value in given.items() if name != "sample_rate"
        }
        info = soundfile.info(io.BytesIO(content))
        assert (info.samplerate, info.channels) == (clip["sample_rate"], clip["num_channels"])
        assert info.frames / info.samplerate == pytest.approx(clip["duration_seconds"], abs=1e-4)
        audio, sample_rate = soundfile.read(io.BytesIO(content))
        if chosen.audio_format == "flac":
            np.testing.assert_allclose(audio, samples(song, number), rtol=0, atol=2**-15)
        else:
            assert sample_rate == 48_000
            loud = slice(len(audio) // 4, -len(audio) // 4)
            times = np.arange(len(audio)) / sample_rate * 44_100
            given_audio = np.interp(times, np.arange(11_025), samples(song, number)[:, 0])
            # White noise is coded badly; no other clip would agree as well.
            assert np.corrcoef(audio[loud, 0], given_audio[loud])[0, 1] > 0.5


def test_failed_songs_are_listed(whole):
    assert rows_of(whole[1]["failed.parquet"]) == [{**failures(shard)[0], "shard": shard} for shard in range(3)]


def test_a_set_is_the_same_wherever_it_is_written(whole, anywhere):
    chosen, files = whole
    write(StemSet.create_or_continue(anywhere, chosen))
    expected = {name: content for name, content in files.items() if "." in name.rpartition("/")[2] and content}
    assert read_files(anywhere) == expected


def test_totals_count_what_is_there(tmp_path):
    stem_set = write(StemSet.create_or_continue(str(tmp_path / "set"), settings()))
    assert dataclasses.asdict(stem_set.finish()) == {
        "num_songs": 5,
        "num_failed": 1,
        "num_partial": 2,
        "num_clips": NUM_CLIPS,
        "num_passing": 6,
        "clip_seconds": 0.25 * NUM_CLIPS,
        "reasons": {"bleed": 9},
        "snr_db": {"vocals": (-2.0, 8.5)},
        "separation_seconds": 0.5 * NUM_CLIPS,
        "separation_joules": 2.0 * 9,
    }


def test_totals_of_a_large_set_are_summed_piece_by_piece(tmp_path):
    stem_set = StemSet.create_or_continue(str(tmp_path / "set"), settings())
    [given, audio] = next(clips(0, snr_after_db=None))
    stem_set.write_shard(0, [(given, audio)], failures(0))
    parts = tmp_path / "set" / "parts"
    [part, failed] = (pyarrow.parquet.read_table(parts / f"shard-00000{name}.parquet") for name in ("", ".failed"))
    part = part.drop_columns([name for name in part.column_names if name.endswith(("id", "caption"))])
    pool, most_bytes = pyarrow.default_memory_pool(), []
    for count in (2, 8):
        pyarrow.parquet.write_table(failed, tmp_path / "failed")
        pyarrow.parquet.write_table(part.take([0] * (count << 16)), tmp_path / "manifest", row_group_size=1 << 16)
        measured = pyarrow.proxy_memory_pool(pool)
        pyarrow.set_memory_pool(measured)
        try:
            totals = stem_set._totals(tmp_path / "failed", tmp_path / "manifest")
        finally:
            pyarrow.set_memory_pool(pool)
        assert totals.num_clips == count << 16 and totals.snr_db == {"vocals": (-3.0, None)}
        most_bytes.append(measured.max_memory())
    assert most_bytes[1] < 1.5 * most_bytes[0], most_bytes


def killed(folder: pathlib.Path, chosen: StemSetSettings, program: str) -> list[str]:
    """Lets a program kill itself in the middle of writing a set, and returns what stands there then."""
    begin = f"stem_set = StemSet.create_or_continue(sys.argv[1], settings(**{dataclasses.asdict(chosen)}))\n"
    outcome = run_python(begin + program, str(folder))
    assert outcome.returncode == -signal.SIGKILL, outcome.stderr
    return list(tree(folder))


@pytest.mark.parametrize("end", [0, 4, 6])
def test_a_run_that_is_killed_between_clips_goes_on(whole, tmp_path, end):
    chosen, files = whole
    program = f"[stem_set.write_shard(s, clips(s, {end} if s else None), failures(s)) for s in (0, 1)]"
    left = killed(tmp_path / "set", chosen, program)
    assert any(name.startswith(".sepnet-working-") for name in left)
    stem_set = StemSet.create_or_continue(str(tmp_path / "set"), chosen)
    assert not any(name.startswith(".") for name in tree(tmp_path / "set"))
    assert [stem_set.is_done(shard) for shard in range(3)] == [True, False, False]
    write(stem_set)
    assert tree(tmp_path / "set") == files


@pytest.mark.parametrize("num_moves", [1, 2, 3, 10])
def test_a_run_that_is_killed_between_files_goes_on(whole, tmp_path, num_moves):
    chosen, files = whole
    # Each file takes its place by one move, but for the settings, which stand already.
    program = (
        "import pathlib\nmoves, replace = [], pathlib.Path.replace\n"
        "def replace_or_die(self, target):\n"
        f"    if len(moves) == {num_moves}: signal.raise_signal(signal.SIGKILL)\n"
        "    moves.append(target)\n    return replace(self, target)\n"
        "pathlib.Path.replace = replace_or_die\nwrite(stem_set)"
    )
    killed(tmp_path / "set", chosen, program)
    write(StemSet.create_or_continue(str(tmp_path / "set"), chosen))
    assert tree(tmp_path / "set") == files


def test_processes_that_write_one_set_at_once_write_it_as_one_does(whole, tmp_path):
    chosen, files = whole
    program = f"write(StemSet.create_or_continue(sys.argv[1], settings(**{dataclasses.asdict(chosen)})))"
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        outcomes = list(threads.map(lambda _: run_python(program, str(tmp_path / "set")), range(2)))
    assert [outcome.returncode for outcome in outcomes] == [0, 0], outcomes
    assert tree(tmp_path / "set") == files


def test_parquet_is_read_by_the_thread_that_asks(tmp_path, monkeypatch):
    # Of threads of Arrow's, one may hold a Python file when Python has ended, and then the process aborts.
    readers, read = set(), LocalFileOpener.read

    def noted(*arguments):
        readers.add(threading.get_ident())
        return read(*arguments)

    monkeypatch.setattr(LocalFileOpener, "read", noted)
    write(StemSet.create_or_continue(str(tmp_path / "set"), settings()))
    overview = read_overview(Destination(str(tmp_path / "set")), 2, 0)
    assert len(overview.sample) == 2
    (tmp_path / "song.flac").write_bytes(b"a song")
    songs = {"path": ["song.flac"], "caption": [CAPTION]}
    pyarrow.parquet.write_table(pyarrow.table(songs), tmp_path / "songs.parquet")
    assert [song.caption for song in read_collection(str(tmp_path / "songs.parquet"))] == [CAPTION]
    assert readers == {threading.get_ident()}


@pytest.mark.parametrize("layout", ["webdataset", "folder"])
def test_of_two_writers_of_one_shard_one_alone_counts(tmp_path, layout):
    address = str(tmp_path / "set")
    StemSet.create_or_continue(address, settings(layout=layout))
    program = (
        f"stem_set = StemSet.create_or_continue(sys.argv[1], settings(layout={layout!r}))\n"
        "stem_set.write_shard(0, clips(0, gain_db=int(sys.argv[2])), [])"
    )
    stop_before_each_file = (
        "put = Destination.put\n"
        "Destination.put = lambda *file: (print('at a file', flush=True), sys.stdin.readline(), put(*file))\n"
    )
    with start_python(stop_before_each_file + program, address, "1") as first:
        assert first.stdout.readline() == "at a file\n"
        with start_python(program, address, "2") as second:
            assert second.stdout.readline().startswith("waiting for another process")
            first.communicate()
    assert (first.returncode, second.returncode) == (0, 0)
    rows = pyarrow.parquet.read_table(tmp_path / "set" / "parts" / "shard-00000.parquet").to_pylist()
    assert [clip["gain_db"] for clip in rows] == [1] * 6
    for clip in rows:
        content = (tmp_path / "set" / clip["file"]).read_bytes()
        if clip["member"]:
            with tarfile.open(fileobj=io.BytesIO(content)) as tar:
                content = tar.extractfile(clip["member"]).read()
        assert hashlib.sha256(content).hexdigest() == clip["sha256"]


def test_whoever_comes_late_changes_nothing(tmp_path):
    stem_set = StemSet.create_or_continue(str(tmp_path / "set"), settings())
    stem_set.write_shard(0, clips(0), [])
    files = tree(tmp_path / "set")
    stem_set.write_shard(0, clips(0, gain_db=5), failures(0))
    assert tree(tmp_path / "set") == files


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    stem_set = StemSet.create_or_continue(str(tmp_path / "set"), settings())
    begun = tree(tmp_path / "set")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
    try:
        with pytest.raises(UserError, match="cannot write .*; make room, or choose another folder") as caught:
            stem_set.write_shard(0, clips(0), [])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(str(caught.value).splitlines()) == 1
    assert tree(tmp_path / "set") == begun
    assert stem_set.shards_to_do() == [0, 1, 2]


def test_memory_does_not_grow_with_the_number_of_clips(tmp_path):
    program = (
        "import numpy as np, psutil\nfrom tests.sepnet.stem_sets.clips import row\n"
        "noise, held = np.random.default_rng(0).uniform(-1, 1, (44_100, 2)).astype('f'), []\n"
        "def made():\n"
        "    for clip in range(int(sys.argv[2])):\n"
        "        yield row(0, clip), noise\n"
        "        held.append(psutil.Process().memory_info().rss)\n"
        "StemSet.create_or_continue(sys.argv[1], settings()).write_shard(0, made(), [])\n"
        "print(max(held))"
    )
    most_bytes = []
    for count in (20, 400):
        outcome = run_python(program, str(tmp_path / f"{count}"), f"{count}")
        assert outcome.returncode == 0, outcome.stderr
        most_bytes.append(int(outcome.stdout))
    assert (tmp_path / "400" / "data" / "shard-00000.tar").stat().st_size > 60e6
    assert most_bytes[1] - most_bytes[0] < 20e6, most_bytes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_version": "4"}, r"made with other settings \(model_version was '3' and is '4'\)"),
        (
            {"clip_seconds": 5, "audio_format": "opus"},
            r"\(audio_format was 'flac' and is 'opus'; clip_seconds was 0.25 and is 5\)",
        ),
    ],
)
def test_other_settings_are_named(anywhere, changes, message):
    StemSet.create_or_continue(anywhere, settings())
    StemSet.create_or_continue(anywhere, settings())
    with pytest.raises(UserError, match=message):
        StemSet.create_or_continue(anywhere, settings(**changes))


@pytest.mark.parametrize(
    ("changes", "message"), [({"layout": "zip"}, "layout is 'zip'"), ({"audio_format": "mp3"}, "mp3")]
)
def test_what_no_set_can_be_is_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        StemSet.create_or_continue(str(tmp_path / "set"), settings(**changes))
    assert not (tmp_path / "set").exists()


def test_folders_of_others_are_left_alone(anywhere):
    with fsspec.open(f"{anywhere}/notes.txt", "w", auto_mkdir=True) as file:
        file.write("mine")
    with pytest.raises(UserError, match="holds 'notes.txt' and no stem set; give a folder that is new or empty"):
        StemSet.create_or_continue(anywhere, settings())
    assert list(read_files(anywhere)) == ["notes.txt"]


def test_damaged_settings_are_named(tmp_path):
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(UserError, match="settings.json is damaged"):
        StemSet.create_or_continue(str(tmp_path), settings())


def test_a_set_that_lacks_shards_is_not_finished(tmp_path):
    stem_set = StemSet.create_or_continue(str(tmp_path / "set"), settings())
    stem_set.write_shard(1, clips(1), [])
    with pytest.raises(UserError, match="lacks 2 of 3 shards, number 0 among them"):
        stem_set.finish()
    assert not (tmp_path / "set" / "manifest.parquet").exists()


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([{"id": "../x/y", "song_id": "../x"}], UserError, "the clip '../x/y' is no name"),
        ([{"id": "x", "song_id": "y"}], ValueError, "'x' of the song 'y' is not below it"),
        ([{}, {}], ValueError, "comes twice"),
        ([{"caption": None}], ValueError, "nothing in caption"),
        ([{"mood": "sad"}], ValueError, "mood"),
    ],
)
@pytest.mark.parametrize("layout", ["webdataset", "folder"])
def test_rows_that_are_none_are_refused(tmp_path, rows, error, message, layout):
    stem_set = StemSet.create_or_continue(str(tmp_path / "set"), settings(layout=layout))
    with pytest.raises(error, match=message):
        stem_set.write_shard(0, ((row(0, 0, **changes), samples(0, 0)) for changes in rows), [])
    assert list(tree(tmp_path)) == ["set", "set/settings.json"]


def test_clips_of_many_channels_are_refused_by_opus(tmp_path):
    stem_set = StemSet.create_or_continue(str(tmp_path / "set"), settings(audio_format="opus"))
    with pytest.raises(UserError, match="clips in Opus have 1 or 2 channels, and these 3; take flac"):
        stem_set.write_shard(0, [(row(0, 0), samples(0, 0, 3))], [])


def test_a_set_without_clips_is_whole(tmp_path):
    stem_set = StemSet.create_or_continue(str(tmp_path / "set"), settings(num_songs=2))
    stem_set.write_shard(0, [], [])
    assert stem_set.finish().num_clips == 0
    assert pyarrow.parquet.read_table(tmp_path / "set" / "manifest.parquet").num_rows == 0


def test_a_set_can_be_sent_to_another_process(tmp_path):
    stem_set = StemSet.create_or_continue(str(tmp_path / "set"), settings())
    assert pickle.loads(pickle.dumps(stem_set)).shards_to_do() == [0, 1, 2]


def test_a_set_is_a_collection(whole, tmp_path):
    chosen, files = whole
    write(StemSet.create_or_continue(str(tmp_path), chosen))
    folder = "data" if chosen.layout == "webdataset" else "audio"
    songs = read_collection(str(tmp_path / folder))
    assert len(songs) == NUM_CLIPS and {song.caption for song in songs} == {f"{CAPTION}, vocals"}


def test_the_digest_of_songs_tells_ids_captions_and_order():
    songs = [CaptionedSong(name, caption, "", "") for name, caption in (("a", ""), ("b", "x"), ("b", "y"))]
    digests = {songs_digest(some) for some in (songs[:2], songs[1::-1], [songs[0], songs[2]], songs[:1], [])}
    assert len(digests) == 5 and songs_digest(songs) == songs_digest(list(songs))
