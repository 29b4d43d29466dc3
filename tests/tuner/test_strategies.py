"""The strategies that draw, as a user runs them. (What they draw is in `test_oracles`.)"""

import csv
import os
import signal

import keras_tuner
import pytest

from sepnet.config.run_folder import Run
from tests.tuner.searching import SECONDS_TO_WAIT, start, tiny_search, wait_for
from tuner.searching.oracles import OBJECTIVE
from tuner.searching.records import COMPLETED, NOT_FITTING, read_search
from tuner.searching.search_space import Space, parse_knob

# Models of 3000 filters do not fit, which takes no time.
KNOBS = "learning_rate=1e-4:1e-2:log", "base_filters=2,3,3000"
SPACE = Space({"waveform": range(1, 4)}, tuple(map(parse_knob, KNOBS)))
DRAWING = ["--knob", KNOBS[0], "--knob", KNOBS[1], "--memory", "2GB"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_songs):
    folder = tmp_path_factory.mktemp("strategies")
    write_songs(folder / "songs")
    return folder


@pytest.fixture(scope="module")
def background(folder):
    """Two searches that go on beside the first test, with a core left to each."""
    songs = folder / "songs"
    bayesian = ["--strategy", "bayesian", "--search-seed", "3", "--max-trials", "2", *DRAWING]
    hyperband = ["--strategy", "hyperband", "--budget", "3epochs"]
    searches = {
        "bayesian": start([*tiny_search(songs, folder, "1-3", "bayesian"), *bayesian]),
        "hyperband": start([*tiny_search(songs, folder, "1-2", "hyperband"), *hyperband]),
    }
    yield searches
    for search in searches.values():
        search.kill()
        search.wait()


def check(trials, seed):
    """Trials are those that KerasTuner itself draws, and each is there once, with its true status."""
    hp = keras_tuner.HyperParameters()
    SPACE.declare(hp)
    oracle = keras_tuner.oracles.RandomSearchOracle(OBJECTIVE, max_trials=len(trials), seed=seed, hyperparameters=hp)
    assert [trial.values for trial in trials] == [oracle._random_values() for _ in trials]
    for trial in trials:
        does_not_fit = trial.values["base_filters"] == 3000
        assert trial.status == (NOT_FITTING if does_not_fit else COMPLETED), trial.reason
        assert len(trial.runs) == (0 if does_not_fit else 1)
        assert (trial.planned_bytes > 2e9) == does_not_fit
        assert 1e-4 <= trial.values["learning_rate"] <= 1e-2
    assert {trial.status for trial in trials} == {NOT_FITTING, COMPLETED}


@pytest.mark.usefixtures("background")
@pytest.mark.slow
def test_a_random_search_that_was_killed_has_the_trials_of_one_that_was_not(run, folder):
    arguments = ["--strategy", "random", "--search-seed", "4", "--max-trials", "4", *DRAWING]
    flags = [*tiny_search(folder / "songs", folder, "1-3", "random"), *arguments]
    search = start(flags)
    wait_for((folder / "random" / "trial_1" / "seed_0" / "config.json").exists)
    os.kill(search.pid, signal.SIGKILL)
    search.wait()
    outcome = run("tuner.search", *flags, timeout=SECONDS_TO_WAIT)
    assert outcome.status == 0, outcome.stderr
    trials = read_search(folder / "random").trials
    assert len(trials) == 4
    check(trials, seed=4)
    assert f"trial 2: not fitting: {trials[2].reason}" in outcome.stderr


@pytest.mark.slow
def test_a_bayesian_search_begins_with_random_trials(background, folder):
    assert background["bayesian"].wait(SECONDS_TO_WAIT) == 0
    trials = read_search(folder / "bayesian").trials
    assert len(trials) == 2
    check(trials, seed=3)


@pytest.mark.slow
def test_later_rounds_of_hyperband_go_on_where_the_earlier_ones_ended(background, folder):
    assert background["hyperband"].wait(SECONDS_TO_WAIT) == 0
    *earlier, later = read_search(folder / "hyperband").trials
    assert [(trial.status, trial.knobs) for trial in (*earlier, later)] == [
        *[(COMPLETED, {"epochs": 1})] * 2,
        (COMPLETED, {"epochs": 3}),
    ]
    assert sorted(trial.depth for trial in earlier) == [1, 2]
    better = min(earlier, key=lambda trial: trial.runs[0].record["metrics"]["val_mse"])
    assert (later.values["tuner/trial_id"], later.depth) == (better.trial_id, better.depth)
    [first], [_, *others] = (history(trial)[:3] for trial in (better, later))
    assert history(later)[0] == first and len(others) == 2
    # What the first epoch took is in what all of it took.
    [spent], [also_spent, *_] = (Run(trial.runs[0].folder).spent for trial in (better, later))
    assert also_spent == spent and later.runs[0].record["costs"]["training_seconds"] > spent[0] > 0


def history(trial):
    with (trial.runs[0].folder / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))
