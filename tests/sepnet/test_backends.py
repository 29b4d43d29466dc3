"""The same models on JAX, and on several devices."""

import importlib.util
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from sepnet.config.config import Config
from sepnet.models.unet_1d import Unet1D
from sepnet.training.fit import make_trainer
from tests.conftest import REPOSITORY

needs_jax = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed: pip install jax")

TWO_DEVICES = """
import json, sys
import numpy as np
import tensorflow as tf
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
import keras
from sepnet.config.config import Config
from sepnet.config.training import Training
from sepnet.models.unet_1d import Unet1D
from sepnet.training.devices import several_devices
from sepnet.training.fit import make_trainer

batch = np.random.default_rng(0).integers(-9999, 9999, (6, 8, 4, 512, 2)).astype("int16")
answer = {}
accumulation = int(sys.argv[1])
for devices in (1, 2):
    off = dict(remix=False, random_gain_db=0.0, channel_swap=False, polarity=False, speed_semitones=0.0)
    # At the end of `fit`, Keras puts averages in the place of the weights; over few batches they differ by their ramp.
    training = Training(devices=devices, accumulation=accumulation, ema=0.0, **off)
    config = Config(model=Unet1D(depth=2, base_filters=3), training=training)
    keras.utils.set_random_seed(0)
    scope = several_devices(devices)
    with scope():
        network = config.build(8000)
        trainer = make_trainer(config, network)
    history = trainer.fit(tf.data.Dataset.from_tensor_slices({"stems": batch}), shuffle=False, verbose=0).history
    answer[devices] = {
        "loss": history["loss"],
        "weights": [weight.value.numpy().ravel().tolist() for weight in network.model.trainable_weights],
    }
    with scope():
        optimizer = make_trainer(config.changed({"ema": 0.5, "clip_norm": 1.0}), network).optimizer
    answer[devices] |= {"momentum": optimizer.get_config()["ema_momentum"], "clip_norm": optimizer.global_clipnorm}
print(json.dumps(answer))
"""


@pytest.mark.slow
@pytest.mark.parametrize("accumulation", ["1", "3"])
def test_two_devices_train_the_weights_of_one(accumulation):
    answer = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES, accumulation], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    one, two = json.loads(answer.stdout.splitlines()[-1]).values()
    np.testing.assert_allclose(one["loss"], two["loss"], rtol=1e-3)
    for expected, weights in zip(one["weights"], two["weights"], strict=True):
        np.testing.assert_allclose(weights, expected, atol=1e-4)
    # Averages are as long, and the shortened gradients of both together no longer.
    assert (one["momentum"], one["clip_norm"]) == (0.5, 1.0)
    assert (two["momentum"], two["clip_norm"]) == (0.5 ** int(accumulation), 0.5)


ONE_EPOCH = (
    "--family unet_1d --depth 1 --base-filters 2 --epochs 1 --steps-per-epoch 2 --segment-seconds 0.1 "
    "--validation-seconds 0.1 --batch-size 4 --data songs"
)

SPLIT_BATCHES = """
import sys
import jax
from sepnet import train

split, make = set(), jax.make_array_from_process_local_data

def made(*arguments):
    array = make(*arguments)
    split.add((array.shape[0], tuple(part.data.shape[0] for part in array.addressable_shards)))
    return array

jax.make_array_from_process_local_data = made
train.main(sys.argv[1:])
print(sorted(split))
"""


@needs_jax
@pytest.mark.slow
def test_jax_splits_every_batch_over_devices(tmp_path, write_song):
    """Validation, whose last batch may be short, is left whole."""
    for number, split in enumerate(("train", "valid")):
        write_song(tmp_path / "songs" / split / f"song {number}", seed=number)
    options = f"{ONE_EPOCH} --validation-segments 3 --devices 2"
    split = subprocess.run(
        [sys.executable, "-c", SPLIT_BATCHES, *options.split()],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "KERAS_BACKEND": "jax",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert split.stdout.splitlines()[-1] == "[(4, (2, 2))]"


ON_TWO = """
import sys
import tensorflow as tf
from sepnet import train

two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
train.main(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.parametrize(("num_segments", "is_shared"), [("8", True), ("6", True), ("5", False)])
def test_tensorflow_validates_segments_that_two_devices_share(tmp_path, write_song, num_segments, is_shared):
    for number, split in enumerate(("train", "valid", "valid")):
        write_song(tmp_path / "songs" / split / f"song {number}", seed=number)
    options = f"{ONE_EPOCH} --validation-segments {num_segments} --name run"
    options += " --no-remix --random-gain-db 0 --no-channel-swap --no-polarity --speed-semitones 0"
    val_mse = {}
    for devices in ("1", "2"):
        outcome = subprocess.run(
            [sys.executable, "-c", ON_TWO, *options.split(), "--runs", f"on {devices}", "--devices", devices],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
        )
        if not is_shared and devices == "2":
            assert "5 validation segments cannot be shared by 2 devices; give --validation-segments 4" in outcome.stderr
            return
        assert outcome.returncode == 0, outcome.stderr
        summary = json.loads((tmp_path / f"on {devices}/run/summary.json").read_text())
        val_mse[devices] = summary["metrics"]["val_mse"]
    assert val_mse["2"] == pytest.approx(val_mse["1"], rel=1e-3)


@pytest.mark.parametrize("backend, compiles", [("tensorflow", False), ("jax", True)])
def test_jax_trains_compiled(monkeypatch, backend, compiles):
    """Without `jit_compile` Keras runs JAX operation by operation."""
    config = Config(model=Unet1D(depth=1, base_filters=2))
    network = config.build(8000)
    monkeypatch.setattr(keras.config, "backend", lambda: backend)
    assert make_trainer(config, network).jit_compile is compiles


@needs_jax
@pytest.mark.parametrize(
    "network",
    [
        # The hybrid has what this one has, and an STFT.
        pytest.param("--family unet_1d", marks=pytest.mark.slow),
        pytest.param("--family unet_2d", marks=pytest.mark.slow),
        pytest.param(
            "--family unet_2d --body tfc_tdf --features complex --output complex_mask --subbands 2",
            marks=pytest.mark.slow,
        ),
        pytest.param("--family unet_hybrid", marks=pytest.mark.slow),
    ],
)
def test_jax_trains_and_tensorflow_exports(network, run, tmp_path, write_song):
    for number, split in enumerate(("train", "valid")):
        write_song(tmp_path / "songs" / split / f"song {number}", seed=number)
    command = f"{network} --depth 2 --base-filters 3 --epochs 2 --steps-per-epoch 3 --segment-seconds 0.25"
    folders = ["--runs", tmp_path / "runs", "--saved-models", tmp_path / "models", "--data", tmp_path / "songs"]
    segments = ["--validation-seconds", "0.25", "--validation-segments", "2"]
    outcome = run("sepnet.train", *command.split(), *segments, *folders, KERAS_BACKEND="jax")
    assert outcome.status == 0, outcome.stderr

    summary = json.loads(next((tmp_path / "runs").glob("*/summary.json")).read_text())
    assert np.isfinite(summary["metrics"]["val_mse"])
    song = tmp_path / "songs/valid/song 1/mixture.wav"
    model = next((tmp_path / "models").iterdir())
    outcome = run("sepnet.separate", song, "--model", model, "-o", tmp_path / "stems")
    assert outcome.status == 0, outcome.stderr
    assert len(list((tmp_path / "stems").glob("*.wav"))) == 4
