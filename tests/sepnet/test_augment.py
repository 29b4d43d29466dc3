"""`sepnet.augment`: what it writes against other tools, and the same again under kills."""

import collections
import contextlib
import hashlib
import http.server
import io
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import uuid

import numpy as np
import psutil
import pytest
import soundfile

from pipelines.audio.reading import read_streams
from pipelines.errors import UserError
from sepnet.augmentation import engine
from sepnet.augmentation.engine import threads_per_worker
from tests.conftest import REPOSITORY
from tests.page_reader import read_page

# Its words are part of the set, so that a caption which does not survive is seen.
CAPTION = 'A "slow" song\nin two lines, with \\ and 🎸'
HOOK = "tests.sepnet.gated_captions:caption"
MEASURED = ["separation_seconds", "separation_joules"]
RECIPE = """
clip_seconds = 1
[[clip]]
kind = "stem"
caption = "{caption}, {source} only"
[[clip]]
kind = "without"
caption = "{caption}, without {source}"
sources = ["drums"]
"""
REMIXES = """
clip_seconds = 5
[[clip]]
kind = "remix"
sources = [["vocals"]]
caption = "{caption}, its {sources}, with the {other_sources} of: {other_caption}"
tempo_tolerance = 0.02
same_key = true
"""


@pytest.fixture(scope="module", autouse=True)
def environment(tmp_path_factory):
    """A home for what Ray leaves there, and a folder for gates."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("GATES", str(tmp_path_factory.mktemp("gates")))
        yield


@pytest.fixture(scope="module")
def saved_models(tmp_path_factory):
    """A folder with a small untrained model, whose stems are silent where the song is."""
    from sepnet.export.write import export_model
    from tests.sepnet.helpers import contract_of, small_network

    folder, network = tmp_path_factory.mktemp("saved_models"), small_network("unet_2d")
    export_model(network.model, folder / "small", contract_of(network))
    return folder


@pytest.fixture(scope="module")
def mixture(real_track):
    """A real song, 6 s at 44.1 kHz in stereo."""
    return np.concatenate([streams[0] for streams in read_streams(real_track)])


@pytest.fixture(scope="module")
def songs(tmp_path_factory, mixture):
    """The manifest of six stretches of a song, 3 s each, of silence, and of a file that is cut off."""
    folder = tmp_path_factory.mktemp("songs")
    stretches = {f"song{number}": mixture[number * 20_000 :][: 3 * 44_100] for number in range(6)}
    for name, samples in {**stretches, "silent": np.zeros_like(stretches["song0"])}.items():
        soundfile.write(folder / f"{name}.flac", samples, 44_100)
    (folder / "damaged.flac").write_bytes((folder / "song0.flac").read_bytes()[:30])
    rows = [{"path": file.name, "caption": f"{CAPTION} {file.stem}"} for file in sorted(folder.glob("*.flac"))]
    (folder / "songs.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder / "songs.jsonl"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    file = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    file.write_text(RECIPE, encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def flags(saved_models, songs, recipe):
    """The command's arguments behind SOURCE and DEST."""
    return ["--model", "small", "--saved-models", saved_models, "--recipe", recipe, "--hook", HOOK] + [
        "--songs-per-shard",
        "2",
    ]


@pytest.fixture(scope="module")
def finished(run, songs, flags, tmp_path_factory):
    """The set of a run that nothing befell, and what the command said. Do not change it."""
    folder = tmp_path_factory.mktemp("finished") / "set"
    # What is deprecated is said on the standard error.
    outcome = run("sepnet.augment", songs, folder, *flags, PYTHONWARNINGS="default::DeprecationWarning")
    assert outcome.status == 0, outcome.stderr
    return folder, outcome


def table(folder, name="manifest"):
    import pyarrow.parquet

    return pyarrow.parquet.read_table(folder / f"{name}.parquet")


def files(folder):
    """The contents of a folder's files, but for hidden ones."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found if not path.name.startswith(".")}


def audio_of(folder, row):
    with tarfile.open(folder / row["file"]) as tar:
        return tar.extractfile(row["member"]).read()


def assert_same_sets(folder, expected):
    """That sets differ in nothing but what was measured of the runs. The first shard has no clips, and no tar."""
    assert table(folder).drop(MEASURED).equals(table(expected).drop(MEASURED))
    assert table(folder, "failed").equals(table(expected, "failed"))
    shards = [
        {name: content for name, content in files(each).items() if name.endswith(".tar")} for each in (folder, expected)
    ]
    assert shards[0] == shards[1] and len(shards[0]) == 3
    ids = table(folder)["id"].to_pylist()
    assert len(set(ids)) == len(ids)


def test_the_manifest_is_what_the_shards_hold(finished):
    folder, _ = finished
    rows = table(folder).to_pylist()
    found = {}
    for path in (folder / "data").iterdir():
        with tarfile.open(path) as tar:
            for member in tar:
                found[f"data/{path.name}", member.name] = tar.extractfile(member).read()
    audio = {place: content for place, content in found.items() if place[1].endswith(".flac")}
    assert {(row["file"], row["member"]) for row in rows} == set(audio) and len(rows) == len(audio)
    assert len({row["id"] for row in rows}) == len(rows)
    for row in rows:
        content = audio[row["file"], row["member"]]
        assert row["sha256"] == hashlib.sha256(content).hexdigest()
        info = soundfile.info(io.BytesIO(content))
        assert (info.samplerate, info.channels, info.frames) == (44_100, 2, 44_100)
        assert (row["sample_rate"], row["num_channels"], row["duration_seconds"]) == (44_100, 2, 1)
        beside = json.loads(found[row["file"], row["member"].replace(".flac", ".json")])
        assert (beside["id"], beside["caption"]) == (row["id"], row["caption"])
    # Six songs of three stretches, each of which gives three stems and what is left without one.
    assert collections.Counter(row["song_id"] for row in rows) == {f"song{number}": 12 for number in range(6)}
    assert collections.Counter(row["start_seconds"] for row in rows) == {0: 24, 1: 24, 2: 24}


def test_captions_survive_as_they_are(finished):
    captions = {row["id"]: (row["song_caption"], row["caption"]) for row in table(finished[0]).to_pylist()}
    whole = f"{CAPTION} song3"
    assert captions["song3/00001000-01-stem"] == (whole, f"{whole}, drums only")
    assert captions["song3/00001000-03-without"] == (whole, f"{whole}, without drums")


def test_loudness_is_ffmpegs(finished):
    if not shutil.which("ffmpeg"):
        pytest.skip("ffmpeg is not installed")
    folder, _ = finished
    for row in table(folder).to_pylist()[::9]:
        measured = subprocess.run(
            ["ffmpeg", "-nostdin", "-v", "error", "-i", "-"]
            + ["-af", "ebur128=metadata=1,ametadata=print:key=lavfi.r128.I:file=-", "-f", "null", "-"],
            input=audio_of(folder, row),
            capture_output=True,
            check=True,
        )
        last = float(re.findall(rb"lavfi\.r128\.I=(\S+)", measured.stdout)[-1])
        assert row["loudness_lufs"] == pytest.approx(last, abs=0.1), row["id"]


def test_clips_are_cut_from_what_the_separator_gives(finished, saved_models, songs):
    from sepnet.separation.separator import Separator

    folder, _ = finished
    mixture, rate = soundfile.read(songs.parent / "song2.flac", dtype="float32")
    stems = Separator(saved_models / "small" / "1")(mixture, rate)
    rows = [row for row in table(folder).to_pylist() if row["song_id"] == "song2"]
    for row in rows:
        begin = round(row["start_seconds"] * rate)
        if row["kind"] == "stem":
            [source] = row["sources"]
            expected = stems[source]
        else:
            assert row["sources"] == ["vocals", "bass"]
            expected = mixture - stems["drums"]
        found, _ = soundfile.read(io.BytesIO(audio_of(folder, row)), dtype="float32")
        gain = 10 ** (row["gain_db"] / 20)
        np.testing.assert_allclose(found, gain * expected[begin : begin + rate], rtol=2e-3, atol=1.5 / 32_768)
        assert np.abs(found).max() > 0.01


def test_a_damaged_song_is_listed_and_a_silent_one_gives_nothing(finished):
    [row] = table(finished[0], "failed").to_pylist()
    assert row["song_id"] == "damaged" and row["shard"] == 0 and "cannot decode damaged" in row["reason"]


def test_the_summary_is_printed_and_kept(finished, songs):
    folder, outcome = finished
    summary, rows = json.loads((folder / "summary.json").read_text()), table(folder).to_pylist()
    whole, run, rates, million = (summary[key] for key in ("set", "run", "rates", "million_songs"))
    assert (whole["num_songs"], whole["num_failed"], whole["num_clips"]) == (8, 1, len(rows))
    assert whole["clip_seconds"] == len(rows) and whole["num_passing"] == sum(row["passes"] for row in rows)
    assert whole["separation_seconds"] == pytest.approx(sum(row["separation_seconds"] for row in rows))
    assert run["songs"] == 8 and run["audio_seconds"] == 7 * 3 and run["workers"] == 1
    assert 0 < run["model_seconds"] < run["worker_seconds"] < 1.05 * run["seconds"]
    assert rates["audio_hours_per_hour"] == pytest.approx(21 / run["seconds"])
    assert rates["joules_per_audio_hour"] == pytest.approx(run["joules"] / 21 * 3600)
    assert million["days_here"] == pytest.approx(1e6 * run["seconds"] / 8 / 86_400)
    assert million["days_on_cluster"] == pytest.approx(million["days_here"] / 100)
    assert re.search(r"songs +8 +1 could not be used, 0 in part alone: failed\.parquet", outcome.stdout)
    assert re.search(rf"clips +{len(rows)} ", outcome.stdout) and "hours of audio an hour" in outcome.stdout
    assert outcome.stdout.endswith(f"stem set:  {folder}\nnext:      python -m sepnet.preview {folder}\n")


def test_nothing_that_is_deprecated_is_asked_of_ray(finished):
    warnings = [line for line in finished[1].stderr.splitlines() if "DeprecationWarning: " in line]
    assert not [line for line in warnings if "RayDeprecationWarning" in line or f"{REPOSITORY}/sepnet/" in line]


def test_once_more_changes_nothing(run, finished, songs, flags):
    folder, _ = finished
    before = files(folder)
    outcome = run("sepnet.augment", songs, folder, *flags)
    assert outcome.status == 0 and not outcome.stderr
    assert "nothing to do: all 4 shards are there" in outcome.stdout
    assert files(folder) == before


def test_killed_behind_its_last_shard_it_is_finished_by_the_next(run, finished, songs, flags, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "set")
    before, summary = files(folder), json.loads((folder / "summary.json").read_text())
    for name in ("manifest.parquet", "failed.parquet", "summary.json"):
        (folder / name).unlink()
    outcome = run("sepnet.augment", songs, folder, *flags)
    assert outcome.status == 0, outcome.stderr
    written = json.loads((folder / "summary.json").read_text())
    assert written["set"] == summary["set"] and "rates" not in written
    assert {**files(folder), "summary.json": b""} == {**before, "summary.json": b""}


def start(*arguments, stderr=subprocess.DEVNULL, **options):
    """Starts the command. It is given no pipe: of a killed one, workers may hold it for a while."""
    command = [sys.executable, "-m", "sepnet.augment", *map(str, arguments)]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=stderr, **options)


class Gates:
    """Pipes at which workers halt until they are let through; by default one in the midst of each shard with clips."""

    def __init__(self, process, names=("song1", "song3", "song5")):
        self._process, self._folder, self._names = process, pathlib.Path(os.environ["GATES"]), names
        self._held = []

    def __enter__(self):
        for name in self._names:
            os.mkfifo(self._folder / name)
        return self

    def __exit__(self, *exception):
        self._hold()
        for pipe in self._folder.iterdir():
            pipe.unlink()
        self.let_through()

    def wait(self):
        """Waits until one more worker has halted."""
        while not self._hold():
            with contextlib.suppress(subprocess.TimeoutExpired):
                pytest.fail(f"the command ended with {self._process.wait(0.02)}")

    def let_through(self):
        """Lets the workers go on that have halted."""
        while self._held:
            os.close(self._held.pop())

    def _hold(self):
        """Takes hold of a worker that has halted, and says whether there was one."""
        for pipe in self._folder.iterdir():
            # Without a reader there is an error.
            with contextlib.suppress(OSError):
                self._held.append(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
                pipe.unlink()
                return True
        return False


def parts(folder):
    return {path.name for path in (folder / "parts").glob("shard-*.parquet") if "failed" not in path.name}


@pytest.mark.slow
def test_killed_in_the_midst_of_a_shard_it_gives_the_same(run, finished, songs, flags, tmp_path):
    folder = tmp_path / "set"
    process = start(songs, folder, *flags)
    with Gates(process) as gates:
        gates.wait()
        while not parts(folder):
            gates.let_through()
            gates.wait()
        descendants = psutil.Process(process.pid).children(recursive=True)
        # Ray's agents, beside them, take a minute to end.
        titles = {child: " ".join(child.cmdline()) for child in descendants}
        process.kill()
        process.wait()
    assert parts(folder) and not (folder / "manifest.parquet").exists()
    # The worker goes on, until it finds out that it is alone.
    outcome = run("sepnet.augment", songs, folder, *flags)
    assert outcome.status == 0, outcome.stderr
    assert_same_sets(folder, finished[0])
    workers = [child for child, title in titles.items() if "ray::" in title and "Agent" not in title]
    assert workers
    psutil.wait_procs(workers)


@pytest.mark.slow
def test_killed_at_three_random_moments_it_gives_the_same(run, finished, songs, flags, tmp_path):
    folder, seed = tmp_path / "set", random.randrange(1 << 32)
    print(f"seed {seed}")
    generator = random.Random(seed)
    begin, end = ((finished[0] / name).stat().st_mtime for name in ("settings.json", "manifest.parquet"))
    for _ in range(3):
        process = start(songs, folder, *flags)
        # Whatever the moment, it comes before the end.
        with Gates(process, ["song5"]):
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(generator.uniform(0.2, 1) * (end - begin))
            process.kill()
            process.wait()
        assert not (folder / "manifest.parquet").exists()
    outcome = run("sepnet.augment", songs, folder, *flags)
    assert outcome.status == 0, outcome.stderr
    assert_same_sets(folder, finished[0])
    assert set(files(folder)) == set(files(finished[0]))


@pytest.mark.slow
def test_ctrl_c_is_one_line_and_opus_in_folders_goes_on(run, finished, songs, flags, tmp_path):
    folder, chosen = tmp_path / "set", [*flags, "--format", "opus", "--layout", "folder"]
    with (tmp_path / "errors").open("w") as errors:
        process = start(songs, folder, *chosen, stderr=errors, start_new_session=True)
    with Gates(process) as gates:
        gates.wait()
        gates.let_through()
        gates.wait()
        # As a terminal does it.
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait() == 130
    assert (tmp_path / "errors").read_text() == "interrupted\n"
    written = {
        row["file"]
        for part in parts(folder)
        for row in table(folder / "parts", part.removesuffix(".parquet")).to_pylist()
    }
    found = {path.relative_to(folder).as_posix() for path in (folder / "audio").rglob("*.opus")}
    assert written == found and len(found) == 24
    outcome = run("sepnet.augment", songs, folder, *chosen)
    assert outcome.status == 0, outcome.stderr
    rows, expected = (table(each).to_pylist() for each in (folder, finished[0]))
    assert [row["id"] for row in rows] == [row["id"] for row in expected]
    for row, other in zip(rows, expected, strict=True):
        path = folder / row["file"]
        assert path == folder / "audio" / f"{row['id']}.opus" and path.with_suffix(".txt").read_text() == row["caption"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == row["sha256"]
        found, rate = soundfile.read(path)
        lossless, _ = soundfile.read(io.BytesIO(audio_of(finished[0], other)))
        assert (rate, found.shape) == (48_000, (48_000, 2)) and soundfile.info(path).subtype == "OPUS"
        times = np.arange(44_100) / 44_100 * 48_000
        assert np.corrcoef(np.interp(times, np.arange(48_000), found[:, 0]), lossless[:, 0])[0, 1] > 0.9, row["id"]


@pytest.mark.slow
def test_songs_and_sets_lie_in_buckets(run, s3_server, finished, songs, flags, tmp_path):
    import s3fs

    system, bucket = s3fs.S3FileSystem(use_listings_cache=False), f"test-{uuid.uuid4().hex}"
    system.mkdir(bucket)
    system.put(f"{songs.parent}/", f"{bucket}/songs/", recursive=True)
    source, dest = f"s3://{bucket}/songs/songs.jsonl", f"s3://{bucket}/set"
    process = start(source, dest, *flags)
    with Gates(process) as gates:
        gates.wait()
        gates.let_through()
        # The second shard with clips: the first one is there.
        gates.wait()
        process.kill()
        process.wait()
    assert system.exists(f"{bucket}/set/parts/shard-00001.parquet")
    assert not system.exists(f"{bucket}/set/manifest.parquet")
    outcome = run("sepnet.augment", source, dest, *flags)
    assert outcome.status == 0, outcome.stderr
    system.get(f"{bucket}/set/", str(tmp_path / "set"), recursive=True)
    assert_same_sets(tmp_path / "set", finished[0])
    assert set(files(tmp_path / "set")) == set(files(finished[0]))
    outcome = run("sepnet.preview", dest, "--to", tmp_path / "page.html")
    assert outcome.status == 0, outcome.stderr
    assert len(read_page(tmp_path / "page.html").named("audio")) == 24


@pytest.mark.slow
def test_a_node_that_dies_changes_nothing(finished, songs, flags, tmp_path):
    from ray.cluster_utils import Cluster

    folder, memory = tmp_path / "set", {"object_store_memory": 80 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, **memory})
    try:
        node = cluster.add_node(num_cpus=1, **memory)
        process = start(songs, folder, *flags, "--ray-address", cluster.address)
        with Gates(process) as gates:
            # One of the two workers is on the node.
            gates.wait()
            gates.wait()
            cluster.remove_node(node, allow_graceful=False)
        assert process.wait() == 0
    finally:
        cluster.shutdown()
    assert_same_sets(folder, finished[0])


@pytest.mark.slow
def test_a_song_that_kills_its_workers_is_listed(run, finished, songs, flags, tmp_path):
    folder = tmp_path / "set"
    outcome = run("sepnet.augment", songs, folder, *flags, "--hook", f"{HOOK}_that_kills")
    assert outcome.status == 0 and not outcome.stderr, outcome.stderr
    damaged, killing = table(folder, "failed").to_pylist()
    assert damaged["song_id"] == "damaged" and (killing["song_id"], killing["shard"]) == ("song2", 2)
    assert killing["reason"].startswith("3 workers died at it")
    clips = [
        {(row["id"], row["sha256"]) for row in table(each).to_pylist() if row["song_id"] != "song2"}
        for each in (folder, finished[0])
    ]
    assert clips[0] == clips[1] and len(clips[0]) == table(folder).num_rows
    assert all(path.suffix == ".parquet" for path in (folder / "parts").iterdir())


@pytest.fixture(scope="module")
def remixed(run, saved_models, mixture, tmp_path_factory):
    """The set of remixes of a song, the same song, and the song a quarter faster."""
    from scipy.signal import resample

    folder = tmp_path_factory.mktemp("remixed")
    (folder / "songs").mkdir()
    (folder / "recipe.toml").write_text(REMIXES)
    for name, samples in (("first", mixture), ("second", mixture), ("third", resample(mixture, len(mixture) * 6 // 7))):
        soundfile.write(folder / "songs" / f"{name}.flac", samples, 44_100)
        (folder / "songs" / f"{name}.txt").write_text(f"The {name} song")
    flags = ["--model", "small", "--saved-models", saved_models, "--recipe", folder / "recipe.toml"]
    outcome = run("sepnet.augment", folder / "songs", folder / "set", *flags)
    assert outcome.status == 0, outcome.stderr
    return folder


@pytest.mark.slow
def test_songs_alike_are_remixed(remixed, saved_models):
    from sepnet.separation.separator import Separator

    rows = table(remixed / "set").to_pylist()
    assert [(row["song_id"], row["other_song_id"]) for row in rows] == [("first", "second"), ("second", "first")]
    first, _ = rows
    assert first["sources"] == ["vocals"] and first["other_sources"] == ["drums", "bass"]
    assert first["caption"] == "The first song, its vocals, with the drums and bass of: The second song"
    assert first["tempo_bpm"] and first["key"] and first["start_seconds"] == first["other_start_seconds"] == 0
    stems = Separator(saved_models / "small" / "1")(*soundfile.read(remixed / "songs" / "first.flac", dtype="float32"))
    expected = sum(stems.values())[: 5 * 44_100] * 10 ** (first["gain_db"] / 20)
    found, _ = soundfile.read(io.BytesIO(audio_of(remixed / "set", first)), dtype="float32")
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1.5 / 32_768)


def assert_one_line(outcome, expected):
    assert outcome.status == 2, outcome.stdout + outcome.stderr
    [line] = outcome.stderr.splitlines()
    assert line.startswith("error: ") and expected in line, line


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (["--model", "nothing"], "nothing"),
        (["--hook", "nowhere.at_all:caption"], "nowhere.at_all, which should hold the function for captions, cannot"),
        (["--hook", "json:nothing"], "json has no function 'nothing'"),
    ],
)
def test_wrong_names_are_one_line(run, songs, flags, tmp_path, wrong, expected):
    assert_one_line(run("sepnet.augment", songs, tmp_path / "set", *flags, *wrong), expected)
    assert not (tmp_path / "set").exists()


def test_a_stem_that_the_model_does_not_know_is_one_line(run, songs, flags, tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE.replace('["drums"]', '["flute"]'))
    outcome = run("sepnet.augment", songs, tmp_path / "set", *flags, "--recipe", tmp_path / "recipe.toml")
    assert_one_line(outcome, "names the source 'flute'; the model has vocals, drums, bass")


def test_a_song_that_is_not_there_is_one_line(run, flags, tmp_path):
    (tmp_path / "songs.csv").write_text("path,caption\nnowhere.flac,A song\n")
    outcome = run("sepnet.augment", tmp_path / "songs.csv", tmp_path / "set", *flags)
    assert_one_line(outcome, f"songs.csv: there is no file {tmp_path / 'nowhere.flac'}; correct the path, or add it")


def test_a_song_that_no_folder_can_be_called_after_is_one_line(run, songs, flags, tmp_path):
    shutil.copy(songs.parent / "silent.flac", tmp_path)
    line = json.dumps({"path": "silent.flac", "caption": "A song", "id": "b" * 300})
    (tmp_path / "songs.jsonl").write_text(f"{line}\n")
    outcome = run("sepnet.augment", tmp_path / "songs.jsonl", tmp_path / "set", *flags, "--layout", "folder")
    assert_one_line(outcome, "of more than 255 bytes, which no folder can have; give it another `id`")
    assert not (tmp_path / "set").exists()


def test_other_settings_are_named(run, finished, songs, flags):
    folder, _ = finished
    before = files(folder)
    outcome = run("sepnet.augment", songs, folder, *flags, "--format", "opus")
    assert_one_line(outcome, "was made with other settings (audio_format was 'flac' and is 'opus')")
    assert files(folder) == before


def test_an_address_where_nothing_answers_is_one_line(run, songs, flags, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    outcome = run("sepnet.augment", songs, tmp_path / "set", *flags, "--ray-address", address)
    assert_one_line(outcome, f"no Ray cluster answers at '{address}'")


@pytest.fixture(params=["nothing", "http"])
def not_ray(request):
    """The address of a port where something listens that says nothing, or is a web server."""
    if request.param == "nothing":
        with socket.create_server(("127.0.0.1", 0)) as listening:
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        return
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.slow
def test_what_answers_and_is_no_ray_is_one_line(run, songs, flags, tmp_path, not_ray):
    # Ray by itself ends the process after minutes, with a page.
    outcome = run("sepnet.augment", songs, tmp_path / "set", *flags, "--ray-address", not_ray, timeout=60)
    assert_one_line(outcome, f"no Ray cluster answers at '{not_ray}'")


def test_a_cluster_that_asks_for_a_token_says_so(monkeypatch):
    # As Ray 2.60 says it, whose clusters ask for one and whose commands bring none unless they are told to.
    said = (
        "gcs_client.cc:210: Failed to get cluster ID\n"
        "ray.exceptions.AuthenticationError: RPC error: InvalidAuthToken: Authentication token is missing or "
        "incorrect. Note: RAY_AUTH_MODE is currently 'disabled' (not 'token').\n"
    )
    asked = subprocess.CompletedProcess([], 1, b"", said.encode())
    monkeypatch.setattr(engine.subprocess, "run", lambda *arguments, **options: asked)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(UserError, match=rf"^the Ray cluster at '{address}' asks for a token; set RAY"):
            engine.start_ray(address, None, 0)


def test_a_place_that_cannot_be_written_is_one_line(run, songs, flags):
    if not os.path.isdir("/proc/self"):
        pytest.skip("only Linux has /proc")
    assert_one_line(run("sepnet.augment", songs, "/proc/nowhere/set", *flags), "/proc/nowhere")


def test_a_machine_on_which_ray_does_not_start_is_one_line(run, songs, flags, tmp_path):
    if not os.path.isdir("/proc/self"):
        pytest.skip("only Linux has /proc")
    outcome = run("sepnet.augment", songs, tmp_path / "set", *flags, RAY_TMPDIR="/proc/nowhere")
    assert_one_line(outcome, "Ray does not start here")


@pytest.mark.slow
def test_a_disk_that_fills_up_is_named(run, songs, flags, tmp_path):
    outcome = run("sepnet.augment", songs, tmp_path / "set", *flags, "--hook", f"{HOOK}_on_a_full_disk")
    assert outcome.status == 2, outcome.stdout
    # Ray says a line of its own.
    line = outcome.stderr.splitlines()[-1]
    assert line.startswith("error: ") and "cannot write" in line and "make room, or choose another folder" in line
    assert parts(tmp_path / "set") <= {"shard-00000.parquet"} and not list(tmp_path.rglob("*.tar"))


@pytest.mark.parametrize(
    ("machines", "workers", "expected"),
    [([4, 4], 1, 4), ([4, 4], 3, 2), ([4, 4, 4], 4, 2), ([8, 2], 2, 4), ([2], 5, 1)],
)
def test_every_worker_has_room_on_one_machine(monkeypatch, machines, workers, expected):
    import ray

    nodes = [{"Alive": True, "Resources": {"CPU": float(cores)}} for cores in machines]
    monkeypatch.setattr(ray, "nodes", lambda: [*nodes, {"Alive": False, "Resources": {"CPU": 64.0}}])
    assert threads_per_worker(workers) == expected
