"""Several models as one, through the command: against sums and a solver of their own."""

import json
import shutil
import subprocess
import sys

import numpy as np
import openvino
import pytest
import soundfile
from scipy.optimize import lsq_linear

from pipelines.errors import UserError
from sepnet.combine import main
from sepnet.compare import main as compare
from sepnet.export.contract import read_contract
from sepnet.export.saved_model import SavedModel
from sepnet.export.write import export_model
from sepnet.separation.remote_model import RemoteModel
from sepnet.separation.separator import Separator
from sepnet.serving.engine.options import ServeOptions
from tests.sepnet.helpers import SAMPLE_RATE, SOURCES, contract_of, noise, small_network
from tests.sepnet.serving.conftest import running

TENSORFLOW_ALONE = """
import sys
import numpy as np
import tensorflow as tf
separate = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
np.savez("stems.npz", **separate(mixture=tf.constant(np.load("mixture.npy"))))
"""


@pytest.fixture(scope="module")
def models(exported, tmp_path_factory):
    """Folders of members by name: two kinds of stereo, and one for each channel that has sources of its own."""
    root = tmp_path_factory.mktemp("members")
    for name, family in (("waves", "unet_1d"), ("spectra", "unet_2d")):
        shutil.copytree(exported[family], root / name)
    sources = ("vocals", "choir")
    network = small_network("unet_1d", sources=sources, num_channels=1, seed=3)
    export_model(network.model, root / "mono", contract_of(network, sources=sources, num_channels=1))
    return root


@pytest.fixture
def combine(models, tmp_path):
    """Combines members by name and returns the folder of the version."""

    def run(*names, flags=()):
        main([*(str(models / name) for name in names), "--to", "both", "--saved-models", str(tmp_path), *flags])
        return tmp_path / "both" / "1"

    return run


def expected_stems(models, names, weights, mixture):
    """The weighted sums of what the members give, each run on its own."""
    total = {}
    for place, name in enumerate(names):
        model = SavedModel(models / name)
        size = model.contract["num_channels"]
        # Each channel alone, where a model takes one.
        parts = [model(mixture[..., first : first + size]) for first in range(0, mixture.shape[2], size)]
        for source, values in weights.items():
            if values[place]:
                stem = np.concatenate([part[source] for part in parts], axis=2)
                total[source] = total.get(source, 0) + values[place] * stem.astype(np.float64)
    return total


@pytest.mark.parametrize(
    ("names", "flags", "weights"),
    [
        pytest.param(["waves", "spectra"], [], dict.fromkeys(SOURCES, (0.5, 0.5)), marks=pytest.mark.slow),
        pytest.param(
            ["waves", "spectra"],
            ["--weights", "3,1", "drums=0,2"],
            {"vocals": (0.75, 0.25), "drums": (0, 1), "bass": (0.75, 0.25)},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["waves", "mono"],
            ["--sources", "choir, drums"],
            {"choir": (0, 1), "drums": (1, 0)},
            marks=pytest.mark.slow,
        ),
        (
            ["waves", "mono", "spectra"],
            ["--weights", "vocals=1,3,4"],
            {"vocals": (0.125, 0.375, 0.5), "drums": (0.5, 0, 0.5), "bass": (0.5, 0, 0.5), "choir": (0, 1, 0)},
        ),
    ],
)
def test_a_combination_is_the_weighted_sum(models, combine, tmp_path, names, flags, weights):
    version = combine(*names, flags=flags)
    mixture = noise(2, 3001, 2)
    expected = expected_stems(models, names, weights, mixture)
    stems = SavedModel(version)(mixture)
    assert sorted(stems) == sorted(expected)
    for source, stem in expected.items():
        np.testing.assert_allclose(stems[source], stem, rtol=0, atol=1e-6)

    # Block by block, by a server, from TensorFlow alone, and in OpenVINO.
    separator = Separator(version, block_seconds=0.01)
    assert separator.is_exact
    song = separator(mixture[0], SAMPLE_RATE)
    with running(ServeOptions(saved_models=tmp_path, poll_seconds=600)) as server:
        served = Separator(RemoteModel(server.url, "both"))(mixture[0], SAMPLE_RATE)
    np.save(tmp_path / "mixture.npy", mixture)
    command = [sys.executable, "-I", "-c", TENSORFLOW_ALONE, str(version)]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    compiled = openvino.Core().compile_model(str(version), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    portable = {output.any_name: value for output, value in compiled({"mixture": mixture}).items()}
    with np.load(tmp_path / "stems.npz") as alone:
        for source, stem in expected.items():
            np.testing.assert_allclose(alone[source], stem, rtol=0, atol=1e-6)
            np.testing.assert_allclose(song[source], stem[0], rtol=0, atol=1e-5)
            np.testing.assert_allclose(served[source], stem[0], rtol=0, atol=1e-5)
            np.testing.assert_allclose(portable[source], stem, rtol=0, atol=1e-5)


def test_the_contract_names_the_members(models, combine):
    contract = read_contract(combine("waves", "spectra", "mono", flags=["--weights", "1,0,0", "choir=0,0,1"]))
    members = {member["name"]: member["weights"] for member in contract["members"]}
    assert members == {
        "waves": {"vocals": 1, "drums": 1, "bass": 1, "choir": 0},
        "mono": {"vocals": 0, "drums": 0, "bass": 0, "choir": 1},
    }
    waves, mono = (read_contract(models / name / "1") for name in ("waves", "mono"))
    assert contract["context_samples"] == max(waves["context_samples"], mono["context_samples"])
    assert contract["parts"] == {source: [source] for source in (*SOURCES, "choir")}


@pytest.fixture
def songs(tmp_path, write_song):
    for number in range(4):
        folder = tmp_path / "songs" / "valid" / f"song {number}"
        write_song(folder, SOURCES, num_samples=3000 + 500 * number, num_channels=2, seed=number)
        write_song(tmp_path / "songs" / "train" / f"song {number}", SOURCES, num_samples=3000, num_channels=2)
    return tmp_path / "songs"


@pytest.mark.parametrize("named", [SOURCES, ("vocals",)])
def test_fitted_weights_are_those_of_least_squares(models, combine, songs, capsys, named):
    if named != SOURCES:
        # What the models hear is the whole song all the same.
        for mixture in songs.rglob("mixture.wav"):
            mixture.unlink()
    version = combine("waves", "spectra", flags=["--fit", str(songs), "--sources", ",".join(named)])
    printed = capsys.readouterr().out
    assert "gain, dB (95%)" in printed
    estimates = {source: [] for source in SOURCES}
    wanted = {source: [] for source in SOURCES}
    for song in sorted((songs / "valid").iterdir()):
        sources = {source: soundfile.read(song / f"{source}.wav", always_2d=True)[0] for source in SOURCES}
        mixture = sum(sources.values()).astype(np.float32)
        stems = [Separator(models / name)(mixture, SAMPLE_RATE) for name in ("waves", "spectra")]
        for source in SOURCES:
            estimates[source].append(np.stack([each[source].ravel() for each in stems], axis=1))
            wanted[source].append(sources[source].ravel())
    contract = read_contract(version)
    assert tuple(contract["sources"]) == named
    for source in named:
        rows, target = np.concatenate(estimates[source]), np.concatenate(wanted[source])
        expected = lsq_linear(rows.astype(np.float64), target, (0, np.inf), tol=1e-12).x
        # A member of no weight is none.
        found = {member["name"]: member["weights"][source] for member in contract["members"]}
        np.testing.assert_allclose([found.get(name, 0) for name in ("waves", "spectra")], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("names", "flags", "message"),
    [
        (["waves"], [], "needs two or more"),
        (["waves", "none"], [], "no SavedModel in"),
        (["waves", "spectra"], ["--sources", "kazoo,bass"], "no model has 'kazoo'; they have vocals, drums, bass"),
        (["waves", "spectra"], ["--sources", "bass,"], "no model has ''; they have vocals"),
        (["waves", "spectra"], ["--sources", "bass,bass"], "name each of them once"),
        (["waves", "spectra"], ["--weights", "1"], "is not 2 numbers from 0"),
        (["waves", "spectra"], ["--weights", "1,nan"], "is not 2 numbers from 0"),
        (["waves", "spectra"], ["--weights", "0,0"], "is not 2 numbers from 0"),
        (["waves", "spectra"], ["--weights", "1e308,1e308"], "is not 2 numbers from 0"),
        (["waves", "spectra"], ["--weights", "kazoo=1,2"], "names no source of the models"),
        (["waves", "mono"], ["--weights", "choir=1,0"], "give some weight to mono"),
        (["waves", "mono"], ["--weights", "1,0"], "leave choir to models that do not have it"),
        (["waves", "spectra"], ["--weights", "1,1", "--fit", "songs"], "leave out one of them"),
        (["waves", "other_rate"], [], "take different audio"),
        (["waves", "elsewhere/waves"], [], r"take different audio \(waves 8000 Hz, waves 44100 Hz\)"),
        (["waves", "other_parts"], [], "combine models whose sources of one name are the same"),
    ],
)
def test_what_cannot_be_combined_is_refused(models, combine, tmp_path, names, flags, message):
    for name, change in (
        ("other_rate", {"sample_rate": 44_100}),
        ("elsewhere/waves", {"sample_rate": 44_100}),
        ("other_parts", {"parts": {"bass": ["kazoo"]}}),
    ):
        if name in names and not (models / name).exists():
            shutil.copytree(models / "waves", models / name)
            path = models / name / "1" / "assets.extra" / "sepnet.json"
            contract = json.loads(path.read_text())
            change = {"parts": {**contract["parts"], **change["parts"]}} if "parts" in change else change
            path.write_text(json.dumps({**contract, **change}))
    with pytest.raises(UserError, match=message):
        combine(*names, flags=flags)
    assert not (tmp_path / "both").exists()


def test_some_sources_are_judged_on_whole_songs(models, combine, songs, tmp_path, capsys):
    """A song without a mixture is the sum of all that the members know, whatever the combination gives."""
    for mixture in songs.rglob("mixture.wav"):
        mixture.unlink()
    combine("waves", "spectra", flags=["--sources", "vocals"])
    folder = sorted((songs / "valid").iterdir())[0]
    vocals, drums, bass = (soundfile.read(folder / f"{source}.wav", always_2d=True)[0] for source in SOURCES)
    for flags in ([], ["--sources", "vocals,rest=drums+bass"]):
        arguments = [str(tmp_path / "both"), "--song", str(folder), *flags, "-o", str(tmp_path / "song.png")]
        if flags:
            arguments[2:3] = [folder.name, "--data", str(songs)]
        capsys.readouterr()
        compare(arguments)
        printed = capsys.readouterr().out
        assert f"{np.square(vocals).mean():.5f}" in printed
        # One source is all of the mixture.
        assert f"{np.square(drums + bass).mean():.5f}" in printed
    with pytest.raises(UserError, match="--sources names drums, bass, and the models give vocals"):
        compare([str(tmp_path / "both"), "--song", folder.name, "--data", str(songs), "--sources", "drums,bass"])


def test_a_source_of_which_no_model_has_anything(gain_model, songs, tmp_path):
    """Estimates that are the mixture upside down: silence is nearer."""
    gains = dict.fromkeys(SOURCES, -1.0)
    members = [gain_model(gains, sample_rate=SAMPLE_RATE) for _ in range(2)]
    flags = ["--to", "both", "--saved-models", str(tmp_path / "models"), "--fit", str(songs)]
    with pytest.raises(UserError, match="silence is better than what any model gives of vocals, drums, bass"):
        main([*map(str, members), *flags])
    assert not (tmp_path / "models").exists()
