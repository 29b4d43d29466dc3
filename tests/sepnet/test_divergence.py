"""Numbers that are none, settings of others, and too little memory: one line each, and nothing that passes for good."""

import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipelines.errors import UserError
from sepnet.config.config import Config
from sepnet.export.write import export_model
from sepnet.train import comparison_text
from sepnet.train import main as train
from sepnet.training.fit import _explained
from tests.sepnet.helpers import contract_of, small_network

TINY = [
    *("--depth", "1", "--base-filters", "2", "--epochs", "1", "--steps-per-epoch", "1", "--batch-size", "1"),
    *("--segment-seconds", "0.2", "--validation-segments", "2", "--validation-seconds", "0.5"),
]


@pytest.fixture
def place(tmp_path, write_song, monkeypatch):
    """A folder to work in, with a few songs."""
    for index in range(3):
        write_song(tmp_path / "songs" / f"song {index}", seed=index)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_weights_that_diverge_are_neither_kept_nor_exported(place):
    with pytest.raises(UserError, match="val_mse is nan in epoch 1, at step 1, .* there are none; .*--learning-rate"):
        train(["--data", "songs", *TINY, "--learning-rate", "1e30", "--name", "nan"])
    assert not list((place / "runs" / "nan" / "checkpoints").iterdir())
    assert not (place / "saved_models").exists()
    with pytest.raises(UserError, match="finished run"):
        from sepnet.export_run import main as export

        export(["runs/nan"])


@pytest.mark.slow
def test_the_default_of_twelve_levels_does_not_diverge(place):
    # With the step size of shallow networks, the mean loss of its first epoch was 1.6 on the demo songs.
    flags = ["--family", "unet_1d", "--depth", "12", "--num-channels", "1", "--epochs", "1", "--batch-size", "2"]
    train([*flags, "--segment-seconds", "1.5", "--validation-segments", "4", "--validation-seconds", "1"])
    run = place / "runs" / "unet_1d_depth12"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["metrics"]["val_mse"] < summary["baselines"]["silence"]["val_mse"]
    assert float((run / "history.csv").read_text().splitlines()[1].split(",")[1]) < 0.3


@pytest.mark.slow
def test_what_was_good_before_stays_good(place):
    train(["--data", "songs", *TINY, "--name", "run"])
    run = place / "runs" / "run"
    config = json.loads((run / "config.json").read_text())
    config["training"] |= {"epochs": 2, "learning_rate": 1e30, "schedule": "constant"}
    (run / "config.json").write_text(json.dumps(config))
    before = {path: path.read_bytes() for path in (run / "checkpoints").iterdir()}
    # From another folder, too: the songs were named by a relative path.
    (place / "elsewhere").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place / "elsewhere")
        message = r"(loss|val_mse) is nan in epoch 2, .*the last good weights are in .*best.weights.h5, of epoch 1"
        with pytest.raises(UserError, match=message):
            train(["--resume", str(run), "--saved-models", str(place / "saved_models")])
    assert {path: path.read_bytes() for path in (run / "checkpoints").iterdir()} == before
    assert [path.name for path in (place / "saved_models" / "run").iterdir()] == ["1"]


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_not_exported(tmp_path, number):
    network = small_network("unet_1d")
    weight = network.model.weights[0]
    weight.assign(np.full(weight.shape, number))
    with pytest.raises(UserError, match="hold NaN or infinity, so nothing is exported"):
        export_model(network.model, tmp_path / "models" / "nan", contract_of(network))
    assert not list(tmp_path.rglob("saved_model.pb"))


def test_no_ratio_is_divided_by_zero():
    assert "silent" in comparison_text("silence", 0.0, 0.1)
    assert comparison_text("silence", 0.1, 0.0) == "The model makes no error, unlike silence."
    assert comparison_text("silence", 0.1, 0.01) == "The model is 10.0 dB below silence."


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"data": {"data": ""}}, "--data is empty"),
        ({"data": {"data": "  "}}, "--data is empty"),
        ({"data": {"segment_seconds": math.inf}}, "--segment-seconds is inf; it must be a finite number"),
        ({"data": {"validation_seconds": math.inf}}, "--validation-seconds is inf"),
        ({"data": {"segment_seconds": 1e308}}, "--segment-seconds is 1e.308; it must be at most 86400"),
        ({"data": {"sample_rate": 10**12}}, "--sample-rate is 1000000000000; it must be at most"),
        ({"training": {"learning_rate": math.inf}}, "--learning-rate is inf"),
        ({"training": {"weight_decay": math.inf}}, "--weight-decay is inf"),
        ({"training": {"joules": math.inf}}, "--joules is inf"),
        ({"training": {"random_gain_db": 1e308}}, "--random-gain-db is 1e.308; it must be at most 120"),
    ],
)
def test_options_that_mean_nothing_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        Config.from_values(values)


@pytest.mark.parametrize("name", ["..", ".", "a/b", "/a"])
def test_a_name_leads_nowhere_else(place, name):
    with pytest.raises(UserError, match=f"--name: '{name}' is no name of a folder; other options say where"):
        train(["--data", "songs", *TINY, "--name", name])


def test_blanks_after_commas_are_no_part_of_names(place):
    with pytest.raises(UserError, match="lacks kazoo"):
        train(["--data", "songs", *TINY, "--sources", "vocals, kazoo"])


@pytest.mark.slow
def test_the_home_folder_is_found(place, monkeypatch):
    monkeypatch.setenv("HOME", str(place))
    train(["--data", "~/songs", *TINY, "--runs", "~/more runs", "--name", "home"])
    assert (place / "more runs" / "home" / "summary.json").is_file()


def test_a_batch_that_no_memory_holds_is_refused(place):
    with pytest.raises(UserError, match=r"a batch of 1000000 segments of 60 s alone takes .* GB"):
        train(["--data", "songs", *TINY, "--segment-seconds", "60", "--batch-size", "1000000"])


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        tf.errors.ResourceExhaustedError(None, None, "failed to allocate memory"),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate"),
    ],
)
def test_too_little_memory_is_one_line(error):
    with pytest.raises(UserError, match="not enough memory for this training; lower --batch-size"), _explained():
        raise error
    with pytest.raises(RuntimeError, match="something else"), _explained():
        raise RuntimeError("something else")


def test_what_tf_data_wraps_is_one_line():
    told = "cannot decode a.flac: lost sync; expected a complete audio file"
    with pytest.raises(UserError, match=f"^{told}$"), _explained():
        raise tf.errors.UnknownError(None, None, f"UserError: {told}\nTraceback (most recent call last)")
    with pytest.raises(tf.errors.UnknownError), _explained():
        raise tf.errors.UnknownError(None, None, "ValueError: else")


def settings(folder, **values):
    """Writes a settings file of Keras, and returns the environment in which it counts."""
    (folder / ".keras").mkdir(exist_ok=True)
    (folder / ".keras" / "keras.json").write_text(json.dumps(values))
    return {"HOME": str(folder)}


@pytest.mark.slow
def test_settings_of_others_change_nothing(place, run):
    songs, folders = str(place / "songs"), ["--runs", str(place / "runs"), "--saved-models", str(place / "models")]
    environment = settings(place, image_data_format="channels_first", floatx="float64")
    outcome = run("sepnet.train", "--data", songs, *TINY, *folders, TF_USE_LEGACY_KERAS="1", **environment)
    assert (outcome.status, outcome.stderr.count("\n")) == (0, 1), outcome.stderr
    keras.utils.set_random_seed(0)
    train(["--data", songs, *TINY, *folders])
    figures = [
        json.loads((place / "runs" / name / "summary.json").read_text())["metrics"]
        for name in sorted(path.name for path in (place / "runs").iterdir())
    ]
    assert figures[0] == pytest.approx(figures[1], rel=1e-5)


@pytest.mark.parametrize(
    ("environment", "values", "message"),
    [
        ({}, {"floatx": "float99"}, "Keras cannot start as ~/.keras/keras.json asks"),
        ({}, {"backend": "no_such_backend"}, "Keras cannot start as ~/.keras/keras.json asks"),
        (
            {"KERAS_BACKEND": "numpy"},
            {},
            "the back end of Keras is numpy, by KERAS_BACKEND; expected one of tensorflow",
        ),
    ],
)
def test_settings_that_cannot_be_used_are_one_line(place, run, environment, values, message):
    outcome = run("sepnet.plan", "--depths", "1", **settings(place, **values), **environment)
    assert outcome.status == 2
    [line] = outcome.stderr.splitlines()
    assert line.startswith(f"error: {message}")


@pytest.mark.slow
def test_no_cache_is_needed_where_nothing_is_converted(place, run):
    folders = ["--runs", str(place / "runs"), "--saved-models", str(place / "models")]
    outcome = run("sepnet.train", "--data", str(place / "songs"), *TINY, *folders, HOME="/dev/null", SEPNET_CACHE="")
    assert outcome.status == 0, outcome.stderr
