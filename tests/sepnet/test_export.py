"""SavedModels: the same stems as Keras, in a process that knows TensorFlow alone, whole or not at all."""

import errno
import json
import os
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipelines.errors import UserError
from sepnet.config.config import Config
from sepnet.config.data import Data
from sepnet.config.run_folder import Run
from sepnet.export.contract import CONTRACT_FILE, read_contract
from sepnet.export.write import export_model, export_run, newest_model, newest_version, versions
from sepnet.export_run import main as export
from tests.sepnet.helpers import SAMPLE_RATE, SOURCES, contract_of, noise, small_section, stacked

# One odd, and one shorter than the grid (64 samples of the 2-D network, 4 of the 1-D one).
LENGTHS = (4096, 2001, 3)
CONTRACT = {
    "format": 1,
    "sources": ["vocals"],
    "sample_rate": 8000,
    "num_channels": 1,
    "grid_samples": 4,
    "context_samples": 0,
}
# As little as an export needs.
CONTRACT_OF_NONE = {"sample_rate": SAMPLE_RATE, "num_channels": 2, "sources": list(SOURCES)}

TENSORFLOW_ALONE = """
import json, sys
import numpy as np
import tensorflow as tf
answer = {}
for family, folder in json.loads(sys.argv[1]).items():
    loaded = tf.saved_model.load(folder)
    signature = loaded.signatures["serving_default"]
    _, inputs = signature.structured_input_signature
    specs = {"inputs": inputs, "outputs": signature.structured_outputs}
    answer[family] = {
        side: {name: [spec.shape.as_list(), spec.dtype.name] for name, spec in specs[side].items()} for side in specs
    }
    mixture = np.load(sys.argv[2])
    stems = signature(mixture=tf.constant(mixture))
    np.savez(f"{family}.npz", **{name: stem.numpy() for name, stem in stems.items()})
    wav = tf.audio.encode_wav(mixture[0], 8000)
    files = loaded.signatures["wav"](wav_bytes=tf.reshape(wav, [1]))
    decoded = {name.removesuffix("_bytes"): tf.audio.decode_wav(file[0])[0].numpy() for name, file in files.items()}
    np.savez(f"{family} of wav.npz", **decoded)
    answer[family]["signatures"] = sorted(loaded.signatures)
answer["foreign"] = sorted({"sepnet", "pipelines", "tuner"} & set(sys.modules))
print(json.dumps(answer))
"""


@pytest.mark.parametrize("family", ["unet_1d", "unet_1d_context", "unet_2d"])
@pytest.mark.parametrize("num_samples", LENGTHS)
def test_saved_model_agrees_with_keras(networks, exported, family, num_samples):
    loaded = tf.saved_model.load(str(exported[family] / "1"))
    for batch_size in (1, 3):
        mixture = noise(batch_size, num_samples, 2, seed=batch_size)
        saved = stacked(loaded.signatures["serving_default"](mixture=tf.constant(mixture)))
        assert saved.shape == (batch_size, num_samples, len(SOURCES), 2)
        np.testing.assert_allclose(saved, stacked(networks[family].model(mixture)), rtol=0, atol=1e-5)


def test_saved_model_needs_tensorflow_alone(networks, exported, tmp_path):
    """Isolated mode (`-I`) elsewhere: neither the checkout nor PYTHONPATH can be imported from."""
    mixture = noise(2, 1001, 2)
    np.save(tmp_path / "mixture.npy", mixture)
    folders = json.dumps({family: str(folder / "1") for family, folder in exported.items()})
    command = [sys.executable, "-I", "-c", TENSORFLOW_ALONE, folders, "mixture.npy"]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    answer = json.loads(finished.stdout)
    assert answer["foreign"] == []
    for family, network in networks.items():
        tensor = [[None, None, 2], "float32"]
        assert answer[family] == {
            "inputs": {"mixture": tensor},
            "outputs": dict.fromkeys(sorted(SOURCES), tensor),
            "signatures": ["contract", "serving_default", "tensor", "wav"],
        }
        expected = network.model(mixture)
        with np.load(tmp_path / f"{family}.npz") as stems:
            np.testing.assert_allclose(stacked(stems), stacked(expected), rtol=0, atol=1e-5)
        with np.load(tmp_path / f"{family} of wav.npz") as stems:
            for source in SOURCES:
                # 16 bit on both ways.
                np.testing.assert_allclose(stems[source], expected[source][0], rtol=0, atol=1e-3)


def test_every_export_is_a_new_version(networks, tmp_path):
    network, folder = networks["unet_1d"], tmp_path / "saved_models" / "model"
    with pytest.raises(UserError, match="no SavedModel in"):
        newest_version(folder)
    with pytest.raises(UserError, match="no model under"):
        newest_model(folder.parent)
    contract = {**contract_of(network), "metrics": {"val_mse": 0.5}}
    for number in (1, 2):
        assert export_model(network.model, folder, contract) == folder / str(number)
        assert newest_version(folder) == newest_model(folder.parent) == folder / str(number)
    (folder / "1").rename(folder / "10")
    assert versions(folder) == [2, 10]
    assert newest_version(folder) == folder / "10"
    assert newest_version(folder / "2") == folder / "2"
    assert read_contract(folder / "2") == {"format": 1, **contract}
    assert sorted(path.name for path in folder.iterdir()) == ["10", "2"]


def test_folders_that_are_no_versions_are_no_models(networks, tmp_path):
    network = networks["unet_1d"]
    version = export_model(network.model, tmp_path / "model", contract_of(network))
    for name in ("a copy", ".sepnet-unfinished-1-x"):
        shutil.copytree(version, tmp_path / "model" / name)
    assert newest_model(tmp_path) == version


@pytest.mark.skipif(sys.platform == "win32", reason="there are no file locks")
def test_of_exports_at_once_each_waits_for_its_number(networks, tmp_path, monkeypatch):
    import fcntl

    network, folder = networks["unet_1d"], tmp_path / "model"
    save = tf.saved_model.save

    def refused(*arguments, **options):
        other = os.open(folder, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(other)
        save(*arguments, **options)

    monkeypatch.setattr(tf.saved_model, "save", refused)
    assert export_model(network.model, folder, contract_of(network)) == folder / "1"


def test_an_export_that_fails_leaves_nothing(networks, tmp_path, monkeypatch):
    model = networks["unet_1d"].model

    def fill_disk(path, *_):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    # The last file of all, when the graph is written already.
    monkeypatch.setattr("sepnet.export.write.write_warmup", fill_disk)
    with pytest.raises(UserError, match="No space left on device"):
        export_model(model, tmp_path / "model", CONTRACT_OF_NONE)
    assert list(tmp_path.rglob("*")) in ([], [tmp_path / "model"])
    assert versions(tmp_path / "model") == []
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        export_model(model, tmp_path / "file" / "model", CONTRACT_OF_NONE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "has no assets.extra"),
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ("[" * 100_000, "is damaged"),
        (CONTRACT | {"costs": None}, "costs is None; expected a JSON object"),
        (CONTRACT | {"metrics": [1]}, r"metrics is \[1\]; expected a JSON object"),
        (CONTRACT | {"others": "bass"}, "others is 'bass'; expected a list of stems"),
        ('{"format": 99}', "has format 99; this sepnet reads 1"),
        ('{"format": 1}', "sepnet.json is damaged: sample_rate is None; expected a whole number"),
    ],
)
def test_contracts_that_cannot_be_read_are_refused(tmp_path, text, message):
    path = tmp_path / CONTRACT_FILE
    path.parent.mkdir()
    if text is not None:
        path.write_text(text if isinstance(text, str) else json.dumps(text))
    with pytest.raises(UserError, match=message):
        read_contract(tmp_path)


@pytest.fixture
def run(tmp_path):
    """A run that has finished, of one small network, as training leaves it."""
    run = Run(tmp_path / "runs" / "tiny")
    config = Config(Data(sources=SOURCES), small_section("unet_1d"))
    run.write_config(config)
    config.build(SAMPLE_RATE).model.save_weights(run.best_weights)
    model = {"family": "unet_1d", "depth": config.model.depth}
    errors = {"val_mse": 0.5, "val_si_sdr": 1.0}
    figures = {"metrics": errors, "baselines": {"silence": errors}}
    costs = {"costs": {"parameters": 1, "training_seconds": 1.0}}
    audio = {"sources": list(SOURCES), "sample_rate": SAMPLE_RATE, "num_channels": 2}
    run.write_summary({**model, **figures, **costs, **audio})
    return run


def test_a_run_is_exported_from_inside_of_its_folder(run, monkeypatch):
    monkeypatch.chdir(run.folder)
    export(["."])
    assert read_contract(run.folder / "saved_models" / "tiny" / "1")["name"] == "tiny"


@pytest.mark.parametrize("share", [0, 0.5])
def test_runs_without_whole_weights_are_refused(run, tmp_path, share):
    content = run.best_weights.read_bytes()
    run.best_weights.unlink()
    if share:
        run.best_weights.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"best\.weights\.h5 is gone, damaged or of another version .*put it back"):
        export([str(run), "--to", str(tmp_path / "model")])
    assert not (tmp_path / "model").exists()


def test_a_process_that_was_killed_without_a_word_is_told_of(run, tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(UserError, match="the export through TensorFlow failed: its process ended with status 1"):
        export_run(run, tmp_path / "model")


def test_export_keeps_the_weights_of_normalisation(tmp_path):
    """Moving means and variances are state, not training: exported as they are, and used."""
    mixture = keras.Input((None, 2), name="mixture")
    normalization = keras.layers.BatchNormalization(epsilon=0.0)
    model = keras.Model(mixture, dict.fromkeys(SOURCES, normalization(mixture)))
    normalization.moving_mean.assign([1.0, 2.0])
    normalization.moving_variance.assign([4.0, 0.25])
    version = export_model(model, tmp_path / "model", CONTRACT_OF_NONE)
    signature = tf.saved_model.load(str(version)).signatures["serving_default"]
    audio = noise(1, 10, 2)
    np.testing.assert_allclose(signature(mixture=tf.constant(audio))["bass"], (audio - [1, 2]) / [2, 0.5], atol=1e-6)
