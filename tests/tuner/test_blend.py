"""The models of a search's front as one model."""

import json
import types

import numpy as np
import pytest

from pipelines.errors import UserError
from sepnet.config.config import Config
from sepnet.config.data import Data
from sepnet.config.run_folder import Run
from sepnet.export.contract import read_contract
from sepnet.export.saved_model import SavedModel
from sepnet.export.write import export_model
from tests.sepnet.helpers import SOURCES, contract_of, noise, small_network
from tuner.reporting.export import export_blend


@pytest.fixture
def exported(tmp_path, write_song):
    """Two models of a search, as its export gives them, whose validation songs are two."""
    for split, number in (("train", 0), ("valid", 1), ("valid", 2)):
        write_song(tmp_path / "songs" / split / f"song {number}", SOURCES, num_samples=4000, seed=number)
    run = Run(tmp_path / "trial_0" / "seed_0")
    run.folder.mkdir(parents=True)
    config = Config(Data(data=str(tmp_path / "songs"), sources=SOURCES))
    (run.folder / "config.json").write_text(config.to_json())
    trial = types.SimpleNamespace(runs=[types.SimpleNamespace(folder=run.folder)])
    versions = []
    for name, family in (("shallow", "unet_1d"), ("deep", "unet_2d")):
        network = small_network(family)
        versions.append(export_model(network.model, tmp_path / "models" / name, contract_of(network)))
    return [(trial, version) for version in versions]


def test_the_front_is_blended(exported, tmp_path, capsys):
    search = types.SimpleNamespace(folder=tmp_path / "depths")
    version = export_blend(search, exported, tmp_path / "models")
    assert version == tmp_path / "models" / "depths_blend" / "1"
    assert "gain, dB (95%)" in capsys.readouterr().out
    contract = read_contract(version)
    weights = {member["name"]: member["weights"] for member in contract["members"]}
    assert set(contract["fits"]) == set(SOURCES) and json.dumps(contract["fits"])
    mixture = noise(1, 3000, 2)
    stems = [SavedModel(path)(mixture) for _, path in exported]
    for source, stem in SavedModel(version)(mixture).items():
        parts = zip(("shallow", "deep"), stems, strict=True)
        expected = sum(weights[name][source] * each[source] for name, each in parts if name in weights)
        np.testing.assert_allclose(stem, expected, rtol=0, atol=1e-6)


def test_one_model_is_no_blend(exported, tmp_path):
    with pytest.raises(UserError, match="a combination needs two or more"):
        export_blend(types.SimpleNamespace(folder=tmp_path / "depths"), exported[:1], tmp_path / "models")
