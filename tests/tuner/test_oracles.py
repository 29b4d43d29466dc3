"""Trials of the oracles, by what they are told of it: no model is trained here."""

import collections

import keras_tuner
import pytest
from keras_tuner.src.engine import oracle as kt_oracle

from pipelines.errors import UserError
from tuner.searching.oracles import OBJECTIVE, make_oracle
from tuner.searching.search_space import Knob, Space

SMALL = Space({"waveform": range(1, 6), "stft": range(1, 5)})


def deeper_is_better(values):
    """So is longer training, and the waveform; "stft 4" fails."""
    if (values["representation"], values["depth"]) == ("stft", 4):
        return None
    return 1 / values["depth"] + 0.1 / values.get("tuner/epochs", 1) + (values["representation"] == "stft")


@pytest.fixture
def search(tmp_path):
    """Asks an oracle until it has no more, tells it the errors, and returns all trials in order; None is a failure."""

    def ask(strategy, space, *, restart_after=None, max_trials=20, max_epochs=9, name="search"):
        def make():
            options = {"max_trials": max_trials, "max_epochs": max_epochs, "seed": 3}
            oracle = make_oracle(strategy, space, **options)
            oracle.verbose = 0
            oracle._set_project_dir(str(tmp_path), name)
            return oracle

        oracle, number = make(), 0
        if (tmp_path / name / "oracle.json").exists():
            oracle.reload()
        while (trial := oracle.create_trial("tuner0")).status == "RUNNING":
            number += 1
            if number == restart_after:
                # As after a kill within this trial.
                oracle = make()
                oracle.reload()
                continue
            value = deeper_is_better(trial.hyperparameters.values)
            if value is not None:
                oracle.update_trial(trial.trial_id, {"val_mse": value})
            trial.status = "FAILED" if value is None else "COMPLETED"
            oracle.end_trial(trial)
        assert trial.status == "STOPPED" and not oracle.ongoing_trials
        again = make()
        again.reload()
        assert again.create_trial("tuner0").status == "STOPPED" and again.end_order == oracle.end_order
        return [oracle.trials[trial_id] for trial_id in oracle.start_order]

    return ask


def model_of(trial):
    values = trial.hyperparameters.values
    return values["representation"], values["depth"]


EVERY = sorted((name, depth) for name, depths in SMALL.depths.items() for depth in depths)


@pytest.mark.parametrize("strategy", ["grid", "random", "bayesian"])
def test_depths_between_those_that_are_listed_are_not_tried(search, strategy):
    trials = search(strategy, Space({"waveform": [3, 6, 12]}), restart_after=2)
    assert sorted(map(model_of, trials)) == [("waveform", depth) for depth in (3, 6, 12)]


@pytest.mark.parametrize("strategy", ["grid", "random", "bayesian"])
@pytest.mark.parametrize("restart_after", [None, 8])
def test_a_space_of_few_models_is_tried_whole_and_each_model_once(search, strategy, restart_after):
    trials = search(strategy, SMALL, restart_after=restart_after)
    assert sorted(map(model_of, trials)) == EVERY


def test_random_trials_are_those_of_keras_tuner(search):
    knobs = Knob("learning_rate", low=1e-4, high=1e-2, log=True), Knob("base_filters", low=2, high=6)
    space = Space({"waveform": range(1, 5)}, knobs)
    hp = keras_tuner.HyperParameters()
    space.declare(hp)
    theirs = keras_tuner.oracles.RandomSearchOracle(OBJECTIVE, max_trials=6, seed=3, hyperparameters=hp)
    expected = [theirs._random_values() for _ in range(6)]
    found = [trial.hyperparameters.values for trial in search("random", space, max_trials=6, restart_after=3)]
    assert found == expected


def rounds_of(trials):
    """Trials by the number of epochs that they are trained for."""
    rounds = collections.defaultdict(list)
    for trial in trials:
        rounds[trial.hyperparameters.values["tuner/epochs"]].append(trial)
    return dict(rounds)


def test_hyperband_without_failures_is_that_of_keras_tuner(search):
    space = Space({"waveform": range(5, 11), "stft": range(5, 11)}, (Knob("learning_rate", low=0.0, high=1.0),))
    trials = search("hyperband", space)
    # Li et al. 2018 with R = 9 and a factor of 3: rounds of 9, 3 and 1, then of 5 and 2, then of 3.
    assert {epochs: len(of_round) for epochs, of_round in rounds_of(trials).items()} == {1: 9, 3: 3 + 5, 9: 1 + 2 + 3}
    for trial in trials:
        values = trial.hyperparameters.values
        if values["tuner/round"]:
            earlier = trials[int(values["tuner/trial_id"])].hyperparameters.values
            assert values["tuner/initial_epoch"] == earlier["tuner/epochs"] < values["tuner/epochs"]
            assert (values["depth"], values["learning_rate"]) == (earlier["depth"], earlier["learning_rate"])


@pytest.mark.parametrize("restart_after", [None, 12])
def test_hyperband_goes_on_with_the_best_of_few(search, restart_after):
    """The first round asks for 27 models. There are nine, one of which fails."""
    trials = search("hyperband", SMALL, restart_after=restart_after, max_epochs=27)
    rounds = rounds_of(trials)
    assert sorted(map(model_of, rounds[1])) == EVERY
    # Of eight, the best third goes on, and then the best of three.
    assert sorted(map(model_of, rounds[3])) == [("waveform", 3), ("waveform", 4), ("waveform", 5)]
    assert list(map(model_of, rounds[9])) == list(map(model_of, rounds[27])) == [("waveform", 5)]
    assert [model_of(trial) for trial in trials if trial.status == "FAILED"] == [("stft", 4)]


@pytest.mark.parametrize("name", ["a [1] $b", "caf\udce9"])
@pytest.mark.parametrize("strategy", ["grid", "random", "bayesian"])
def test_a_search_that_is_done_goes_on_with_more_depths_and_trials(search, strategy, name):
    small = Space({"waveform": range(1, 3)}, (Knob("learning_rate", (0.1, 0.2)),))
    large = Space({"waveform": range(1, 4), "stft": range(1, 3)}, (Knob("learning_rate", (0.1, 0.2, 0.3)),))
    first = search(strategy, small, max_trials=3, name=name)
    assert len(first) == (4 if strategy == "grid" else 3)
    trials = search(strategy, large, max_trials=12, name=name)
    assert [trial.get_state()["hyperparameters"]["values"] for trial in trials[: len(first)]] == [
        trial.hyperparameters.values for trial in first
    ]
    assert [trial.score for trial in trials[: len(first)]] == [trial.score for trial in first]
    tried = {tuple(sorted(trial.hyperparameters.values.items())) for trial in trials}
    assert len(tried) == len(trials) == (15 if strategy == "grid" else 12)
    assert {values[-1] for values in tried} == {("representation", "waveform"), ("representation", "stft")}


@pytest.mark.parametrize("strategy", ["grid", "random"])
def test_numbers_may_get_none_beside_them(search, strategy):
    """KerasTuner knows no None, so they are text from then on."""
    space, grown = (Space({"stft": [1]}, (Knob("num_bins", values),)) for values in ((64, 128), (None, 64, 128)))
    first = search(strategy, space)
    assert [trial.hyperparameters.values["num_bins"] for trial in first].count(64) == 1
    trials = search(strategy, grown)
    assert sorted(trial.hyperparameters.values["num_bins"] for trial in trials) == ["128", "64", "none"]
    assert [trial.score for trial in trials[:2]] == [trial.score for trial in first]


def test_more_trials_are_those_of_a_search_that_asked_for_them_at_once(search):
    space = Space({"waveform": range(1, 9)}, (Knob("learning_rate", low=1e-4, high=1e-2, log=True),))
    search("random", space, max_trials=2, name="grown")
    grown, whole = (search("random", space, max_trials=6, name=name) for name in ("grown", "whole"))
    assert [trial.hyperparameters.values for trial in grown] == [trial.hyperparameters.values for trial in whole]


def test_a_trial_of_another_space_is_refused(search):
    search("random", SMALL, max_trials=3)
    with pytest.raises(UserError, match="is none of this search; search anew under another --name"):
        search("random", Space({"mel": range(1, 5)}), max_trials=3)


@pytest.mark.parametrize("strategy", ["grid", "hyperband"])
@pytest.mark.parametrize("call", ["update_trial", "end_trial"])
def test_an_exception_leaves_no_lock_closed(strategy, call, tmp_path):
    """Else every worker after it would wait for ever."""
    oracle = make_oracle(strategy, SMALL, max_trials=None, max_epochs=3, seed=0)
    oracle._set_project_dir(str(tmp_path), "search")
    unknown = keras_tuner.engine.trial.Trial(keras_tuner.HyperParameters(), trial_id="unknown", status="COMPLETED")
    with pytest.raises(KeyError):
        oracle.end_trial(unknown) if call == "end_trial" else oracle.update_trial("unknown", {"val_mse": 1.0})
    assert not kt_oracle.LOCKS[oracle].locked()
