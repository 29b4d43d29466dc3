"""Whole songs against the true stems, counted here with NumPy."""

import json

import numpy as np
import pytest
import soundfile

from sepnet.config import Config, Data

GAINS = {"vocals": 0.5, "drums": 0.25, "bass": 0.125, "other": 0.0}


@pytest.fixture
def model(gain_model):
    """A model whose stems are the mixture times a gain, with the config that an exported run has."""
    folder = gain_model(GAINS, sample_rate=8000)
    contract = folder / "1" / "assets.extra" / "sepnet.json"
    values = json.loads(contract.read_text())
    contract.write_text(json.dumps({**values, "config": json.loads(Config(Data(sources=tuple(GAINS))).to_json())}))
    return folder


@pytest.fixture
def songs(tmp_path, write_song):
    for number, length in enumerate((4000, 9000)):
        write_song(tmp_path / "songs" / "test" / f"song {number}", num_samples=length, seed=number)
    return tmp_path / "songs"


def test_errors_are_the_mean_over_all_samples(run, model, songs, tmp_path):
    outcome = run("sepnet.evaluate", model, "--data", songs, "--json", tmp_path / "figures.json")
    assert outcome.status == 0, outcome.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    answers = {"gains": lambda mixture, source: GAINS[source] * mixture, "silence": lambda mixture, source: 0 * mixture}
    answers["mixture/num_sources"] = lambda mixture, source: mixture / 4
    for name, answer in answers.items():
        expected = {}
        for source in GAINS:
            errors = []
            for song in sorted((songs / "test").iterdir()):
                true, mixture = (soundfile.read(song / f"{stem}.wav")[0] for stem in (source, "mixture"))
                errors.append(np.square(answer(mixture, source) - true))
            expected[f"mse_{source}"] = np.concatenate(errors).mean()
        expected["mse"] = np.mean(list(expected.values()))
        assert {key: figures[name][key] for key in expected} == pytest.approx(expected, rel=1e-4)
    assert "gains" in outcome.stdout and "SI-SDR" in outcome.stdout


def test_mistakes_get_one_line(run, model, songs):
    outcome = run("sepnet.evaluate", model, "--data", songs, "--split", "valid")
    assert outcome.status == 2 and "has no song in its valid split" in outcome.stderr
    outcome = run("sepnet.evaluate", songs, "--data", songs)
    assert outcome.status == 2 and "no SavedModel in" in outcome.stderr
