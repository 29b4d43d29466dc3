"""Runs that were killed, runs that diverge, and runs that go on: through the command, in processes of their own."""

import json
import os
import signal
import subprocess
import sys
import time
import types

import numpy as np
import pytest

from pipelines.errors import UserError
from pipelines.files import folder_lock
from sepnet.config.config import Config
from sepnet.config.run_folder import Run
from sepnet.config.training import Training
from sepnet.train import free_run
from sepnet.train import main as train
from tests.conftest import REPOSITORY

TINY = {
    "family": "unet_1d",
    "depth": 2,
    "base-filters": 4,
    "normalization": "renorm",
    "dropout": 0.2,
    "epochs": 3,
    "steps-per-epoch": 6,
    "segment-seconds": 0.2,
    "validation-seconds": 0.2,
    "validation-segments": 2,
    "ema": 0.5,
    "accumulation": 2,
}
# One thread adds numbers up in one order.
ONE_CPU = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}


@pytest.fixture
def songs(tmp_path, write_song):
    for number in range(4):
        split = "train" if number else "valid"
        write_song(tmp_path / "songs" / split / f"song {number}", seed=number)
    return tmp_path / "songs"


def flags(songs, *more):
    folders = ["--runs", str(songs.parent / "runs"), "--saved-models", str(songs.parent / "models")]
    tiny = [text for name, value in TINY.items() for text in (f"--{name}", str(value))]
    return [*tiny, "--data", str(songs), *folders, *more]


def epochs_done(run):
    path = run / "history.csv"
    return len(path.read_text().splitlines()) - 1 if path.exists() else 0


def test_a_killed_run_goes_on_as_if_nothing_had_happened(songs, run):
    runs = songs.parent / "runs"
    assert run("sepnet.train", *flags(songs, "--name", "undisturbed"), **ONE_CPU).status == 0

    command = [sys.executable, "-m", "sepnet.train", *flags(songs, "--name", "killed")]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=REPOSITORY, env={**os.environ, **ONE_CPU}, **quiet)
    while not epochs_done(runs / "killed"):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert 1 <= epochs_done(runs / "killed") < 3
    with np.load(runs / "killed/checkpoints/last.npz") as file:
        spent = json.loads(str(file["state"]))["spent"]

    resumed = run("sepnet.train", "--resume", runs / "killed", "--saved-models", songs.parent / "models", **ONE_CPU)
    assert resumed.status == 0, resumed.stderr
    last = "checkpoints/last.npz"
    with np.load(runs / "undisturbed" / last) as one, np.load(runs / "killed" / last) as two:
        names = [name for name in one.files if name != "state"]
        assert len(names) > 20
        for name in names:
            np.testing.assert_array_equal(one[name], two[name])
    assert (runs / "undisturbed/history.csv").read_text() == (runs / "killed/history.csv").read_text()
    assert (songs.parent / "models/killed/1/saved_model.pb").is_file()
    # The clock of the first sitting goes on in the second one.
    ends = Run(runs / "killed").spent
    assert list(map(list, ends[: len(spent)])) == spent and len(ends) == 3 and ends == sorted(ends)


@pytest.mark.slow
def test_a_loss_that_is_no_number_stops_the_run(songs, run):
    outcome = run("sepnet.train", *flags(songs, "--learning-rate", "1e25", "--schedule", "constant"))
    assert outcome.status == 2
    error = outcome.stderr.splitlines()[-1]
    assert error.startswith("error: the loss is ") and "at step" in error and "learning rate of 1e+25" in error
    assert "Traceback" not in outcome.stderr
    assert not (songs.parent / "models").exists()


def test_what_cannot_be_resumed(songs, run, tmp_path):
    (tmp_path / "empty").mkdir()
    for arguments, expected in (
        (["--resume", tmp_path / "nowhere"], "holds no config.json"),
        (["--resume", tmp_path / "empty"], "holds no config.json"),
        (["--resume", tmp_path / "empty", "--depth", "3"], "leave out --depth"),
    ):
        outcome = run("sepnet.train", *arguments)
        assert outcome.status == 2 and expected in outcome.stderr and len(outcome.stderr.splitlines()) == 1


def test_a_run_that_goes_on_elsewhere_is_left_alone(tmp_path, monkeypatch):
    run = Run(tmp_path / "a run")
    run.write_config(Config())
    with folder_lock(run.folder), pytest.raises(UserError, match="another process works in .*; wait for its end"):
        train(["--resume", str(run)])
    # Its model has its name, also where the path does not say it.
    exported = []
    monkeypatch.setattr("sepnet.train.train", lambda config, run, saved_model, resume: exported.append(saved_model))
    monkeypatch.chdir(run.folder)
    train(["--resume", "."])
    assert [model.name for model in exported] == ["a run"]


def test_runs_that_begin_at_once_have_names_of_their_own(tmp_path):
    with free_run(tmp_path / "runs", "name") as one, free_run(tmp_path / "runs", "name") as other:
        assert [run.folder.name for run in (one, other)] == ["name", "name-2"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("val_mse", "epochs"), [([3.0, 1.0, 2.0], 9), ([3.0, 1.0, 2.0, 1.0], 4)])
def test_a_run_that_its_patience_has_ended_is_not_trained_further(tmp_path, monkeypatch, val_mse, epochs):
    from sepnet.training import fit
    from sepnet.training.callbacks import Recorder

    asked = {}
    trainer = types.SimpleNamespace(fit=lambda *_, **options: asked.update(options))
    network = types.SimpleNamespace(training_samples=lambda num_samples: num_samples, margin_samples=0)
    monkeypatch.setattr(fit, "training_batches", lambda *_, **__: None)
    recorder = Recorder(Run(tmp_path), {}, 2, types.SimpleNamespace(joules=0.0))
    recorder.history = {"val_mse": val_mse}
    config = Config(training=Training(epochs=9, patience=2))
    fit._train(config, network, trainer, recorder, [types.SimpleNamespace(sample_rate=8000)], [{}])
    assert (asked["initial_epoch"], asked["epochs"]) == (len(val_mse), epochs)


def test_a_kill_between_two_files_of_an_epoch_loses_nothing(tmp_path, monkeypatch):
    """Best weights are those of an epoch that the checkpoint knows: with averaged weights, of these."""
    import keras

    from sepnet.training import callbacks
    from sepnet.training.trainer import Trainer
    from tests.sepnet.helpers import SOURCES, small_network

    def recorded(seed):
        trainer = Trainer(small_network("unet_1d", seed=seed), SOURCES)
        trainer.compile(optimizer=keras.optimizers.Adam(use_ema=True))
        trainer.optimizer.build(trainer.trainable_variables)
        recorder = callbacks.Recorder(run, {}, 0, types.SimpleNamespace(joules=0.0))
        recorder.set_model(trainer)
        return trainer, recorder

    def kill(*_):
        raise KeyboardInterrupt

    run = Run(tmp_path / "run")
    run.write_config(Config())
    run.best_weights.write_bytes(b"of an earlier epoch")
    os.utime(run.best_weights, (0, 0))
    trainer, recorder = recorded(0)
    trained = trainer.get_weights()
    # As at the end of the last epoch: the averages, which begin at zero, are in the model.
    swap = callbacks.Swap(swap_on_epoch=True)
    swap.set_model(trainer)
    swap.set_params({"epochs": 1})
    swap.on_epoch_end(0)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(callbacks, "save_weights", kill)
        patch.setattr(callbacks, "peak_bytes", lambda: 10**15)
        recorder.on_epoch_end(0, {"mse": 1.0, "val_mse": 1.0})

    trainer, recorder = recorded(1)
    recorder.restore(trainer)
    assert (recorder.num_epochs, recorder.peak_bytes) == (1, 10**15)
    for weight, expected in zip(trainer.get_weights(), trained, strict=True):
        np.testing.assert_array_equal(weight, expected)
    trainer.model.load_weights(run.best_weights)
    assert not any(np.any(weight) for weight in trainer.trainable_variables)


def test_a_run_in_float16_has_one_state_however_often_it_is_saved(tmp_path):
    import keras

    from sepnet.training.checkpoints import load_state, save_state
    from sepnet.training.trainer import Trainer
    from tests.sepnet.helpers import SOURCES, small_network

    trainers = [Trainer(small_network("unet_1d"), SOURCES) for _ in range(2)]
    for trainer in trainers:
        trainer.compile(optimizer=keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()))
        trainer.optimizer.build(trainer.trainable_variables)
    for epoch in range(3):
        save_state(tmp_path / "last.npz", trainers[0], {"epoch": epoch})
        trainers[0].optimizer.dynamic_scale.assign(epoch + 1.0)
    assert load_state(tmp_path / "last.npz", trainers[1]) == {"epoch": 2}
    assert float(trainers[1].optimizer.dynamic_scale) == 2.0


def test_a_checkpoint_of_another_configuration(tmp_path):
    import keras

    from sepnet.training.checkpoints import load_state, save_state
    from sepnet.training.trainer import Trainer
    from tests.sepnet.helpers import SOURCES, small_network

    trainers = [Trainer(small_network("unet_1d", depth=depth), SOURCES) for depth in (2, 3)]
    for trainer in trainers:
        trainer.compile(optimizer=keras.optimizers.Adam())
        trainer.optimizer.build(trainer.trainable_variables)
    path = tmp_path / "last.npz"
    save_state(path, trainers[0], {"history": {}})
    assert load_state(path, trainers[0]) == {"history": {}}
    with pytest.raises(UserError, match="another configuration"):
        load_state(path, trainers[1])
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="damaged"):
        load_state(path, trainers[0])
