"""Mistakes of users: one line that says what to do, exit status 2, and nothing left behind."""

import importlib
import pathlib
import shutil

import pytest
import soundfile

from pipelines.errors import UserError

UNET_1D = ("--family", "unet_1d")
ONE_EPOCH = ("--epochs", "1", "--steps-per-epoch", "1")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small model, exported, for songs that cannot be separated."""
    from sepnet.export.write import export_model
    from tests.sepnet.helpers import contract_of, small_network

    network = small_network("unet_1d")
    return export_model(network.model, tmp_path_factory.mktemp("saved_models") / "model", contract_of(network)).parent


@pytest.fixture
def place(tmp_path, write_song, model):
    """A folder with songs and models, good and bad ones; what a command writes goes to `out`."""
    for index in range(3):
        write_song(tmp_path / "songs" / f"song {index}", seed=index)
    for name in ("lacking", "no audio", "empty"):
        write_song(tmp_path / name / "a song")
        write_song(tmp_path / name / "good song")
    (tmp_path / "lacking" / "a song" / "bass.wav").unlink()
    (tmp_path / "no audio" / "a song" / "bass.wav").write_text("no audio at all\n" * 100)
    (tmp_path / "empty" / "a song" / "bass.wav").write_bytes(b"")
    (tmp_path / "no songs").mkdir()
    (tmp_path / "file.wav").write_text("no audio at all\n" * 100)
    (tmp_path / "empty.wav").write_bytes(b"")
    shutil.copytree(model, tmp_path / "damaged")
    (tmp_path / "damaged" / "1" / "saved_model.pb").write_bytes(b"\x00damaged")
    shutil.copytree(model, tmp_path / "no weights")
    shutil.rmtree(tmp_path / "no weights" / "1" / "variables")
    shutil.copytree(model, tmp_path / "no contract")
    shutil.rmtree(tmp_path / "no contract" / "1" / "assets.extra")
    shutil.copytree(model, tmp_path / "model")
    return tmp_path


def on(songs, *flags):
    """Arguments of a short training on a folder of `place`, whose names stand in braces."""
    return ["--data", f"{{{songs}}}", *ONE_EPOCH, "--runs", "{out}/runs", "--saved-models", "{out}/models", *flags]


def of(song, model="model", output="out"):
    """Arguments of a separation."""
    return [f"{{{song}}}", "--model", f"{{{model}}}", "-o", f"{{{output}}}"]


# What each needs is loaded late, so these answer without TensorFlow.
LIGHT = [
    ("sepnet.train", on("nowhere"), "no such folder: .*nowhere"),
    ("sepnet.train", on("no songs"), "no songs under .*no songs"),
    ("sepnet.train", on("file.wav"), "no such folder: .*file.wav"),
    ("sepnet.train", on("lacking"), "song 'a song' lacks bass"),
    ("sepnet.train", on("no audio"), "song 'a song': .*bass.wav.* no audio"),
    ("sepnet.train", on("empty"), "song 'a song': .*bass.wav is empty"),
    ("sepnet.train", on("songs", "--sources", "vocals,kazoo"), "lacks kazoo"),
    ("sepnet.train", on("songs", "--family", "unet_3d"), "unknown family 'unet_3d'; choose one of unet_1d, unet_2d"),
    ("sepnet.train", on("songs", "--depht", "3"), "unrecognized arguments: --depht 3"),
    ("sepnet.train", on("songs", "--frame-step", "64", *UNET_1D), "--frame-step is no option of unet_1d"),
    ("sepnet.train", on("songs", "--runs", "{file.wav}/runs"), "cannot write .*file.wav"),
    ("sepnet.train", on("songs", "--saved-models", "{file.wav}/models"), "cannot write .*file.wav"),
    ("sepnet.train", on("songs", "--runs", "/proc/sepnet/runs"), "cannot write /proc/sepnet"),
    ("sepnet.demo", ["{file.wav}/demo"], "cannot write .*file.wav"),
    ("sepnet.demo", ["{out}", "{out}"], "unrecognized arguments"),
]
HEAVY = [
    (
        "sepnet.train",
        on("songs", "--depth", "14", *UNET_1D),
        "depth 14 does not fit .*8000 Hz.* depth of unet_1d is 13",
    ),
    ("sepnet.train", on("songs", "--depth", "7"), "depth 7 does not fit .*8000 Hz.* depth of unet_2d is 6"),
    ("sepnet.train", on("songs", "--frame-step", "4096", "--depth", "1"), "frame_step is 4096"),
    ("sepnet.train", on("songs", "--depth", "1", "--source-weights", "1,2"), "--source-weights"),
    ("sepnet.train", ["--resume", "{songs}"], "config.json"),
    ("sepnet.export_run", ["{songs}"], "config.json"),
    ("sepnet.separate", of("nowhere.wav"), "cannot read .*nowhere.wav: No such file"),
    ("sepnet.separate", of("no songs"), "no songs holds no audio"),
    ("sepnet.separate", of("file.wav"), "cannot decode .*file.wav.* no audio file"),
    ("sepnet.separate", of("empty.wav"), "empty.wav is empty"),
    ("sepnet.separate", of("song", "nowhere"), "no SavedModel in .*nowhere"),
    ("sepnet.separate", of("song", "songs"), "no SavedModel in .*songs"),
    ("sepnet.separate", of("song", "no contract"), "has no assets.extra.sepnet.json"),
    ("sepnet.separate", of("song", "damaged"), "cannot load the SavedModel .*damaged"),
    ("sepnet.separate", of("song", "no weights"), "cannot load the SavedModel .*no weights"),
    ("sepnet.separate", of("song", output="file.wav"), "cannot write .*file.wav"),
    ("sepnet.separate", [*of("song"), "--gpu"], "unrecognized arguments: --gpu"),
]
# The commands themselves, in processes of their own: these cover every way out of a `main`.
BY_PROCESS = [*LIGHT[:3], *LIGHT[7:10], HEAVY[0], next(case for case in HEAVY if "damaged" in case[2])]


def arguments_at(place: pathlib.Path, arguments) -> list[str]:
    """Puts the paths of `place` where names stand in braces."""
    song = place / "songs" / "song 0" / "mixture.wav"
    paths = {"song": song, **{name: place / name for name in ("nowhere", "nowhere.wav", "out")}}
    paths |= {path.name: path for path in place.iterdir()}
    for name, path in paths.items():
        arguments = [argument.replace(f"{{{name}}}", str(path)) for argument in arguments]
    return arguments


def all_below(folder: pathlib.Path) -> set[pathlib.Path]:
    return set(folder.rglob("*"))


@pytest.mark.parametrize(("module", "arguments", "message"), [*LIGHT, *HEAVY])
def test_mistakes_are_named_and_leave_nothing(place, module, arguments, message):
    before = all_below(place)
    with pytest.raises(UserError, match=message) as caught:
        importlib.import_module(module).main(arguments_at(place, arguments))
    assert "\n" not in str(caught.value)
    assert all_below(place) == before


@pytest.mark.parametrize(("module", "arguments", "message"), BY_PROCESS)
def test_mistakes_end_with_one_line_and_status_2(run, place, module, arguments, message):
    before = all_below(place)
    outcome = run(module, *arguments_at(place, arguments))
    assert outcome.status == 2
    [line] = outcome.stderr.splitlines()
    assert line.startswith("error: ")
    with pytest.raises(UserError, match=message):
        raise UserError(line)
    assert all_below(place) == before


def test_the_song_of_this_file_can_be_separated(place):
    """So the mistakes above are the ones that are refused."""
    importlib.import_module("sepnet.separate").main(arguments_at(place, of("song")))
    assert {soundfile.info(path).frames for path in (place / "out").iterdir()} == {4000}
