"""The learning rate over a run, and what a run may spend."""

import csv
import json
import types

import keras
import numpy as np
import pytest

from sepnet.config.config import Config
from sepnet.config.run_folder import Run
from sepnet.config.training import Training
from sepnet.measures.energy import EnergyMeter
from sepnet.models.unet_1d import Unet1D
from sepnet.training.callbacks import Budget, Recorder
from sepnet.training.fit import _learning_rate, make_trainer
from sepnet.training.schedule import Schedule
from tests.sepnet.helpers import noise


def test_cosine_is_that_of_keras():
    ours, keras_own = Schedule(0.1, "cosine", 40), keras.optimizers.schedules.CosineDecay(0.1, 40)
    for step in (0, 1, 20, 39, 40, 100):
        assert float(ours(step)) == pytest.approx(float(keras_own(step)), abs=1e-7)


def test_step_falls_to_a_tenth_half_way():
    schedule = Schedule(1.0, "step", 10)
    assert [round(float(schedule(step)), 6) for step in (0, 4, 5, 9)] == [1.0, 1.0, 0.1, 0.1]


@pytest.mark.parametrize("accumulation", [1, 4])
def test_the_learning_rate_falls_over_the_whole_run_whatever_is_accumulated(accumulation):
    """Half of the batches leave half of it."""
    training = Training(epochs=2, steps_per_epoch=4, accumulation=accumulation, learning_rate=0.5)
    config = Config(model=Unet1D(depth=1, base_filters=2), training=training)
    trainer = make_trainer(config, config.build(8000))
    for _ in range(4):
        trainer.train_on_batch({"stems": (noise(1, 4, 100, 2) * 20_000).astype(np.int16)})
    assert float(trainer.optimizer.learning_rate) == pytest.approx(0.25, abs=1e-6)


@pytest.mark.parametrize("devices", [1, 2])
def test_batches_of_the_warmup_are_counted_as_those_of_the_run(devices):
    """On several devices the optimizer sees every fourth batch; there, too, half of the warmup leaves half of it."""
    options = {"epochs": 2, "steps_per_epoch": 8, "warmup_steps": 8, "schedule": "step", "learning_rate": 0.5}
    schedule = _learning_rate(Config(training=Training(devices=devices, accumulation=4, **options)))
    last_batches = (0, 1, 2, 3) if devices > 1 else (3, 7, 11, 15)
    assert [float(schedule(step)) for step in last_batches] == pytest.approx([0.25, 0.5, 0.05, 0.05])


def test_joules_grow_with_work():
    with EnergyMeter() as meter:
        before = meter.joules
        noise(5_000_000).sort()
        noise(5_000_000).sort()
        assert meter.joules > before
        described = meter.describe()
    assert described["cpu"] in ("RAPL", "estimated from the load") and described["gpu"] in ("NVML", None)


def test_what_comes_before_training_is_not_counted(tmp_path):
    """Reading the songs may take longer than the whole budget."""
    meter = types.SimpleNamespace(joules=5.0)
    recorder = Recorder(Run(tmp_path), {}, 0, meter)
    meter.joules = 9.0
    assert recorder.seconds == recorder.joules == 0.0
    recorder.on_train_begin()
    meter.joules = 10.0
    assert recorder.joules == 1.0 and recorder.seconds > 0.0


def test_a_run_that_has_spent_its_budget_is_at_its_end():
    recorder = types.SimpleNamespace(num_epochs=4, seconds=9.0, joules=9.0)
    for training in (Training(minutes=0.1), Training(joules=5.0)):
        assert Budget(recorder, Config(training=training)).last_epoch == 4


@pytest.mark.slow
@pytest.mark.parametrize("budget", [("--minutes", "0.05"), ("--joules", "3")])
def test_a_run_ends_when_its_budget_is_spent_and_goes_on_from_there(run, tmp_path, write_song, budget):
    for number, split in enumerate(("train", "valid")):
        write_song(tmp_path / "songs" / split / f"song {number}", seed=number)
    outcome = run(
        "sepnet.train", "--data", tmp_path / "songs", "--family", "unet_1d", "--depth", "1", "--base-filters", "2",
        "--segment-seconds", "0.1", "--validation-seconds", "0.1", "--validation-segments", "1", "--name", "spent",
        "--steps-per-epoch", "40", *budget, "--runs", tmp_path / "runs", "--saved-models", tmp_path / "models",
    )  # fmt: skip
    assert outcome.status == 0, outcome.stderr
    costs = json.loads((tmp_path / "runs/spent/summary.json").read_text())["costs"]
    spent = costs["training_seconds"] if budget[0] == "--minutes" else costs["training_joules"]
    assert spent >= 3
    # Of all epochs, the last alone ended behind the budget; its seconds and joules depend on the machine.
    column = "seconds" if budget[0] == "--minutes" else "joules"
    with (tmp_path / "runs/spent/spent.csv").open(newline="") as file:
        ends = [float(row[column]) for row in csv.DictReader(file)]
    assert all(end < 3 for end in ends[:-1]) and ends[-1] >= 3
    # As a kill between the last checkpoint and these would leave it.
    files = [tmp_path / "runs/spent" / name for name in ("history.csv", "spent.csv")]
    epochs = [file.read_text() for file in files]
    for file in files:
        file.unlink()
    again = run("sepnet.train", "--resume", tmp_path / "runs/spent", "--saved-models", tmp_path / "models")
    assert again.status == 0, again.stderr
    assert [file.read_text() for file in files] == epochs
