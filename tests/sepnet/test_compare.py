"""Runs drawn together, through the command."""

import csv
import json

import pytest


@pytest.fixture
def make_run(tmp_path):
    def make(name, silence=0.007, val_mse=(0.005, 0.003)):
        folder = tmp_path / name
        folder.mkdir()
        figures = {"val_mse": silence, "val_si_sdr": -80.0}
        summary = {
            "family": "unet_1d",
            "depth": 3,
            "metrics": {"epoch": 2, "val_mse": min(val_mse), "val_si_sdr": 4.0},
            "baselines": {"silence": figures, "mixture/num_sources": {**figures, "val_mse": silence / 2}},
            "costs": {"parameters": 272_040, "training_seconds": 90.0},
        }
        (folder / "summary.json").write_text(json.dumps(summary))
        with (folder / "history.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerows([("epoch", "val_mse"), *enumerate(val_mse, start=1)])
        return folder

    return make


def test_the_better_run_comes_first(run, make_run, tmp_path):
    worse, better = make_run("deep"), make_run("flat", val_mse=(0.004, 0.002))
    outcome = run("sepnet.compare", worse, better, "-o", tmp_path / "picture.png")
    assert outcome.status == 0, outcome.stderr
    assert outcome.stdout.index("flat") < outcome.stdout.index("deep") < outcome.stdout.index("silence")
    assert "0.00200" in outcome.stdout and "272,040" in outcome.stdout
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_runs_that_say_nothing_about_each_other(run, make_run, tmp_path):
    outcome = run("sepnet.compare", make_run("one"), make_run("two", silence=0.008), "-o", tmp_path / "picture.png")
    assert outcome.status == 2 and "different segments" in outcome.stderr and len(outcome.stderr.splitlines()) == 1
    outcome = run("sepnet.compare", tmp_path, "-o", tmp_path / "picture.png")
    assert outcome.status == 2 and "no summary.json" in outcome.stderr
    assert not (tmp_path / "picture.png").exists()
