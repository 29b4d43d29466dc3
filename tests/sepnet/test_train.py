"""Training through the command that users type, from their songs to separated stems."""

import csv
import json
import shutil
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest
import soundfile

from pipelines.audio.reading import read_streams
from pipelines.errors import UserError
from sepnet.evaluate import main as evaluate
from sepnet.separate import main as separate
from sepnet.separation.separator import Separator
from sepnet.train import main as train
from tests.sepnet.helpers import noise

TINY = [
    *("--depth", "2", "--base-filters", "4", "--epochs", "1", "--steps-per-epoch", "2", "--batch-size", "2"),
    *("--segment-seconds", "0.5", "--validation-segments", "2", "--validation-seconds", "1"),
]
SOURCES = ("vocals", "drums", "bass", "other")
BASELINES = {"silence", "mixture/num_sources"}

LOAD_AND_RUN = """
import sys
import numpy as np
import tensorflow as tf
for version in sys.argv[2:]:
    loaded = tf.saved_model.load(version)
    stems = loaded.signatures["serving_default"](mixture=tf.constant(np.load(sys.argv[1])))
    np.savez(version + ".npz", **{name: stem.numpy() for name, stem in stems.items()})
assert not {"sepnet", "pipelines", "tuner"} & set(sys.modules)
"""


@pytest.fixture(scope="module")
def real_songs(real_track, tmp_path_factory):
    """A folder in MUSDB18's layout with the real track in two splits."""
    root = tmp_path_factory.mktemp("musdb18")
    for split in ("train", "valid"):
        (root / split).mkdir()
        shutil.copy(real_track, root / split / f"{split}.stem.mp4")
    return root


@pytest.fixture
def into(tmp_path, monkeypatch):
    """Flags that keep a run and its model in a temporary folder; tables get room."""
    monkeypatch.setenv("COLUMNS", "200")
    return ["--runs", str(tmp_path / "runs"), "--saved-models", str(tmp_path / "saved_models")]


def history_of(run_folder):
    with (run_folder / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def logged_epochs(folder, tag):
    """Epochs that TensorBoard's logs of a run hold something of."""
    import tensorflow as tf

    [path] = (folder / "logs").rglob("events.*")
    events = tf.compat.v1.train.summary_iterator(str(path))
    return [event.step for event in events for value in event.summary.value if value.tag == tag]


def check_run(folder, version, sources, family, sample_rate):
    """Checks that a run leaves what it should, that its files agree with each other and with the model's contract."""
    assert {path.name for path in folder.iterdir()} == {
        *("config.json", "history.csv", "spent.csv", "loss.png", "checkpoints", "logs", "summary.json")
    }
    assert any((folder / "checkpoints").iterdir())
    height, width, _ = matplotlib.image.imread(folder / "loss.png").shape
    assert height >= 400 and width >= 600

    config = json.loads((folder / "config.json").read_text())
    assert (config["family"], config["model"]["depth"], config["data"]["sources"]) == (family, 2, list(sources))
    summary = json.loads((folder / "summary.json").read_text())
    assert {"metrics", "baselines", "costs", "versions", "git_revision", "seed"} <= set(summary)
    assert set(summary["baselines"]) == BASELINES
    history = history_of(folder)
    assert len(history) == config["training"]["epochs"]
    losses = [float(row["val_mse"]) for row in history]
    assert logged_epochs(folder, "val_mse") == list(range(1, len(losses) + 1))
    best = [epoch for epoch, loss in enumerate(losses, 1) if loss < min(losses[: epoch - 1], default=np.inf)]
    assert logged_epochs(folder, "spectrograms") == best
    assert summary["metrics"]["val_mse"] == pytest.approx(min(losses), rel=1e-6)
    assert summary["metrics"]["epoch"] == 1 + int(np.argmin(losses))
    for figures in (summary["metrics"], *summary["baselines"].values()):
        assert figures["val_mse"] == pytest.approx(np.mean([figures[f"val_mse_{name}"] for name in sources]), rel=1e-5)
    assert summary["versions"]["tensorflow"] and summary["costs"]["parameters"] > 0

    contract = json.loads((version / "assets.extra" / "sepnet.json").read_text())
    assert (contract["sources"], contract["sample_rate"]) == (list(sources), sample_rate)
    assert (contract["family"], contract["depth"], contract["config"]) == (family, 2, config)
    assert contract["metrics"] == summary["metrics"]
    return contract


def check_table(stdout, sources, folder, version):
    """Checks that the last thing printed is a table with the figures of the summary, and where everything lies."""
    summary = json.loads((folder / "summary.json").read_text())
    rows = {f"model (epoch {summary['metrics']['epoch']})": summary["metrics"], **summary["baselines"]}
    for name, figures in rows.items():
        [line] = [line for line in stdout.splitlines() if name in line and "│" in line]
        assert [float(cell) for cell in line.strip("│ ").split("│")[1:]] == pytest.approx(
            [figures["val_mse"], *(figures[f"val_mse_{source}"] for source in sources)], abs=6e-6
        )
    assert [line.split()[-1] for line in stdout.splitlines()[-2:]] == [str(folder), str(version)]


def test_a_real_track_is_trained_on_and_separated(run, real_songs, real_track, into, tmp_path, capsys):
    flags = ["--data", str(real_songs), *TINY, *into]
    outcome = run("sepnet.train", *flags, "--family", "unet_2d")
    assert outcome.status == 0, outcome.stderr
    train([*flags, "--family", "unet_1d"])
    printed = {"unet_2d": outcome.stdout, "unet_1d": capsys.readouterr().out}
    versions = {family: tmp_path / "saved_models" / f"{family}_depth2" / "1" for family in printed}
    for family, version in versions.items():
        folder = tmp_path / "runs" / f"{family}_depth2"
        check_run(folder, version, SOURCES, family, 44_100)
        check_table(printed[family], SOURCES, folder, version)

    # The whole track at once, in a process that imports TensorFlow alone.
    mixture = np.concatenate([streams[0] for streams in read_streams(real_track)])
    np.save(tmp_path / "mixture.npy", mixture[None])
    command = [sys.executable, "-I", "-c", LOAD_AND_RUN, str(tmp_path / "mixture.npy"), *map(str, versions.values())]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    for version in versions.values():
        separate([str(real_track), "--model", str(version.parent), "-o", str(tmp_path / "stems")])
        with np.load(f"{version}.npz") as alone:
            peak = max(1.0, *(np.abs(alone[source]).max() for source in SOURCES))
            for source in SOURCES:
                stem, sample_rate = soundfile.read(tmp_path / "stems" / f"{source}.wav")
                assert sample_rate == 44_100 and alone[source].shape == mixture[None].shape
                np.testing.assert_allclose(stem, alone[source][0] / peak, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_songs_in_train_alone_are_validated_on_one_of_them(openmsx, into, tmp_path):
    (tmp_path / "songs" / "train").mkdir(parents=True)
    for song in sorted((openmsx / "train").iterdir())[:2]:
        (tmp_path / "songs" / "train" / song.name).symlink_to(song)
    train(["--data", str(tmp_path / "songs"), "--name", "openmsx", *TINY, *into])
    version = tmp_path / "saved_models" / "openmsx" / "1"
    check_run(tmp_path / "runs" / "openmsx", version, SOURCES, "unet_2d", 44_100)


@pytest.fixture(scope="module")
def speech_and_noise(tmp_path_factory):
    """Mono songs at 8 kHz of other sources, without a mixture, one FLAC among them."""
    root = tmp_path_factory.mktemp("speech")
    for index, split in enumerate(("train", "train", "valid")):
        folder = root / split / f"song {index}"
        folder.mkdir(parents=True)
        for seed, source in enumerate(("speech", "noise")):
            suffix = "flac" if index == 1 and seed else "wav"
            soundfile.write(folder / f"{source}.{suffix}", noise(20_000, 1, seed=10 * index + seed), 8000, "PCM_16")
    return root


@pytest.mark.slow
def test_other_sources_are_trained_on_like_those_of_music(speech_and_noise, into, tmp_path, capsys):
    flags = ["--data", str(speech_and_noise), "--sources", "speech,noise", "--num-channels", "1", *TINY, *into]
    flags += ["--family", "unet_1d"]
    train([*flags, "--name", "first"])
    first = tmp_path / "runs" / "first"
    contract = check_run(first, tmp_path / "saved_models" / "first" / "1", ("speech", "noise"), "unet_1d", 8000)
    assert contract["num_channels"] == 1
    assert "2 train, 1 valid, 0 test" in capsys.readouterr().out
    # One seed gives one run; a name that is taken gets a number, and the model a new version.
    train([*flags, "--name", "first"])
    train([*flags, "--name", "other", "--seed", "1"])
    assert history_of(tmp_path / "runs" / "first-2") == history_of(first)
    assert history_of(tmp_path / "runs" / "other") != history_of(first)
    assert sorted(path.name for path in (tmp_path / "saved_models" / "first").iterdir()) == ["1", "2"]


def test_the_best_epoch_is_exported(into, tmp_path):
    """In the validation song the sources have changed places: the more is learned, the worse."""
    seconds = np.arange(16_000) / 8000
    tones = [0.4 * np.sin(2 * np.pi * hz * seconds)[:, None] for hz in (150, 1500)]
    truth = {"low": tones[1], "high": tones[0]}
    for split, stems in {"train": dict(zip(("low", "high"), tones, strict=True)), "valid": truth}.items():
        (tmp_path / "songs" / split / "song").mkdir(parents=True)
        for source, samples in stems.items():
            soundfile.write(tmp_path / "songs" / split / "song" / f"{source}.wav", samples, 8000, "PCM_16")
    flags = ["--data", str(tmp_path / "songs"), "--sources", "low,high", "--family", "unet_1d", "--num-channels", "1"]
    flags += ["--loss", "mse", "--optimizer", "adamw", "--ema", "0"]
    train(
        [*flags, "--name", "worse", *TINY, *into, "--epochs", "2", "--steps-per-epoch", "10", "--learning-rate", "0.03"]
    )
    check_run(tmp_path / "runs" / "worse", tmp_path / "saved_models" / "worse" / "1", ("low", "high"), "unet_1d", 8000)
    first, last = (float(row["val_mse"]) for row in history_of(tmp_path / "runs" / "worse"))
    assert first < last

    separator = Separator(tmp_path / "saved_models" / "worse")
    errors = []
    for second in (slice(0, 8000), slice(8000, 16_000)):
        stems = separator(sum(truth.values())[second].astype(np.float32), 8000)
        errors += [np.mean((stems[source] - truth[source][second]) ** 2) for source in truth]
    assert np.mean(errors) == pytest.approx(first, rel=1e-3)


def test_recordings_are_mixed_trained_on_and_evaluated(into, tmp_path, capsys, fresh_cache):
    for number in range(12):
        for source in ("speech", "noise"):
            path = tmp_path / "data" / source / f"folder {number % 2}" / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, noise(3000 + number, 1, seed=number + 50 * (source == "noise")) / 8, 8000, "PCM_16")
    flags = ["--data", str(tmp_path / "data"), "--sources", "speech,noise", "--snr-db", "-5:10"]
    train([*flags, *TINY, *into, "--num-channels", "1", "--family", "unet_1d"])
    printed = capsys.readouterr().out
    config = json.loads((tmp_path / "runs" / "unet_1d_depth2" / "config.json").read_text())
    assert config["data"]["snr_db"] == "-5:10" and "recordings, and mixtures of those held out" in printed
    model = str(tmp_path / "saved_models" / "unet_1d_depth2")
    evaluate([model, *flags, "--quick", "--workers", "1", "-o", str(tmp_path / "figures")])
    assert "1 test songs" in capsys.readouterr().out
    figures = json.loads((tmp_path / "figures" / "figures.json").read_text())
    assert len(figures["methods"]) > 2
    # One set of mixtures serves both; what was trained on is no song.
    assert len(list((fresh_cache / "mixtures").iterdir())) == 1
    with pytest.raises(UserError, match="choose --split valid or test"):
        evaluate([model, *flags, "--quick", "--split", "train", "-o", str(tmp_path / "more figures")])
