"""SavedModels: the same stems as Keras, in a process that knows TensorFlow alone, whole or not at all."""

import errno
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipelines.errors import UserError
from sepnet.export.contract import CONTRACT_FILE, read_contract
from sepnet.export.write import export_model, newest_model, newest_version, versions
from tests.sepnet.helpers import SAMPLE_RATE, SOURCES, contract_of, noise, stacked

# One odd, and one shorter than the grid (64 samples of the 2-D network, 4 of the 1-D one).
LENGTHS = (4096, 2001, 3)
# As little as an export needs.
CONTRACT_OF_NONE = {"sample_rate": SAMPLE_RATE}

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
        ('{"format": 99}', "has format 99; this sepnet reads 1"),
    ],
)
def test_contracts_that_cannot_be_read_are_refused(tmp_path, text, message):
    path = tmp_path / CONTRACT_FILE
    path.parent.mkdir()
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_contract(tmp_path)


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
