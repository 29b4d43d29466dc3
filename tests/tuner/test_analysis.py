"""The statements of a search, against brute force, other formulas and effects that are known."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from pipelines.errors import UserError
from tests.tuner.synthetic import errors_of, write_search, write_trial, write_whole_search
from tuner.reporting.analysis import COSTS, analyse, compare, pareto_front
from tuner.reporting.answer import answer_text, other_rows, records, summary, table_rows
from tuner.reporting.intervals import Bootstrap
from tuner.searching.records import Run, Trial, read_search


@pytest.fixture
def make(tmp_path):
    """Makes a search of trials (representation, depth, mean, keywords) and returns its answer."""

    def search(*trials, cost="joules", **usual):
        folder = write_search(tmp_path / "search")
        for place, (representation, depth, mean, *options) in enumerate(trials):
            keywords = {"seed": place, **usual, **(options[0] if options else {})}
            of_trial = {key: keywords.pop(key) for key in ("costs", "knobs", "first_seed") if key in keywords}
            write_trial(folder, representation, depth, errors_of(mean, **keywords), **of_trial)
        return analyse(read_search(folder), cost)

    return search


def joules(value):
    return {"costs": {"separation_joules": value}}


def test_with_one_seed_the_interval_is_scipys_bootstrap():
    errors = np.random.default_rng(0).exponential(0.002, 48)
    estimate = Bootstrap(48).estimate(errors[None])
    theirs = scipy.stats.bootstrap(
        (errors,), np.mean, n_resamples=10_000, method="percentile", random_state=1
    ).confidence_interval
    width = theirs.high - theirs.low
    assert (estimate.value, estimate.num_seeds) == (pytest.approx(errors.mean()), 1)
    assert (estimate.low, estimate.high) == pytest.approx((theirs.low, theirs.high), abs=0.05 * width)


def test_where_only_seeds_differ_the_interval_is_students():
    seeds = np.array([0.0021, 0.0024, 0.0022, 0.0027, 0.0023])
    estimate = Bootstrap(48).estimate(np.repeat(seeds[:, None], 48, axis=1))
    low, high = scipy.stats.t.interval(0.95, 4, loc=seeds.mean(), scale=scipy.stats.sem(seeds))
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=0.04 * (high - low))


def test_the_interval_of_an_error_ends_at_zero():
    estimate = Bootstrap(48).estimate(np.repeat([[0.001], [0.009]], 48, axis=1))
    assert estimate.low == 0 and estimate.high > 0.03


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_the_interval_of_the_opposite_difference_is_mirrored(num_seeds):
    generator = np.random.default_rng(0)
    errors, others = (dict(enumerate(generator.exponential(0.002, (num_seeds, 48)))) for _ in range(2))
    there, back = Bootstrap(48).difference(errors, others), Bootstrap(48).difference(others, errors)
    assert (back.value, back.low, back.high) == pytest.approx((-there.value, -there.high, -there.low), rel=1e-9)


@pytest.mark.parametrize("num_seeds", [1, 2, 3, 5])
@pytest.mark.parametrize(("of_seeds", "of_segments", "of_both"), [(1.0, 0.3, 0.3), (0.02, 1.0, 0.3), (0.2, 1.0, 1.0)])
def test_intervals_hold_the_truth(num_seeds, of_seeds, of_segments, of_both):
    generator, bootstrap, num_held = np.random.default_rng(3), Bootstrap(40, 1000), 0
    if num_seeds == 1:
        of_seeds = 0.0
    for _ in range(200):
        errors = of_seeds * generator.normal(size=(num_seeds, 1)) + of_segments * (generator.exponential(1, 40) - 1)
        errors = errors + of_both * generator.normal(size=(num_seeds, 40))
        estimate = bootstrap.difference(dict(enumerate(errors)), dict.fromkeys(range(num_seeds), 0.0))
        num_held += estimate.low <= 0 <= estimate.high
    # What 95% hold, 200 times: fewer than 182 times in one of 100 such tests. Skewed errors take a little from it.
    assert num_held >= 180


def test_pairing_finds_what_the_spread_of_segments_hides(make):
    answer = make(("stft", 3, 0.0024), ("stft", 4, 0.0023), spread=0.00005)
    best, other = answer.candidates
    assert (best.trial.depth, other.trial.depth) == (4, 3)
    # By themselves they cannot be told apart.
    assert other.val_mse.low < best.val_mse.value < other.val_mse.value < best.val_mse.high
    assert other.behind.value == pytest.approx(0.0001, rel=1e-6)
    assert 0 < other.behind.low < other.behind.value < other.behind.high < 0.0002
    assert best.behind.low == best.behind.high == 0


def test_pairs_are_made_by_seed():
    def trial(seeds, values):
        runs = (
            Run(seed, None, {"segment_mse": [[value], [value + 1]]}) for seed, value in zip(seeds, values, strict=True)
        )
        return Trial("0", {}, "completed", "", tuple(runs))

    bootstrap = Bootstrap(2)
    paired = compare(bootstrap, trial([0, 1, 2], [5.0, 9.0, 1.0]), trial([2, 1, 0], [0.5, 8.5, 4.5]))
    assert (paired.value, paired.low, paired.high, paired.num_seeds) == pytest.approx((0.5, 0.5, 0.5, 3))
    shared = compare(bootstrap, trial([0, 1], [5.0, 9.0]), trial([1, 2], [8.0, 100.0]))
    assert (shared.value, shared.num_seeds) == (1.0, 1)
    none = compare(bootstrap, trial([0, 1], [5.0, 9.0]), trial([2], [1.0]))
    assert (none.value, none.num_seeds) == (6.0, 1)


def test_the_front_is_brute_force():
    generator = np.random.default_rng(0)
    for _ in range(20):
        # Small whole numbers have ties.
        pairs = generator.integers(0, 6, (12, 2)).tolist()
        expected = [
            not any(a <= value and b <= cost and (a, b) != (value, cost) for a, b in pairs) for value, cost in pairs
        ]
        assert pareto_front(*zip(*pairs, strict=True)) == expected


@pytest.mark.parametrize(
    ("trials", "best", "chosen"),
    [
        # As good within the interval, and cheaper.
        ([(3, 0.00231, 1.0), (5, 0.0023, 2.0)], 5, 3),
        # Cheaper, but worse.
        ([(3, 0.0030, 1.0), (5, 0.0023, 2.0)], 5, 5),
        # As good, but dearer.
        ([(3, 0.0023, 1.0), (5, 0.00231, 2.0)], 3, 3),
        # The cheapest is worse, the next is not.
        ([(2, 0.0030, 0.5), (3, 0.00231, 1.0), (4, 0.0023, 1.5), (5, 0.00231, 2.0)], 4, 3),
        # Depth is no cost.
        ([(3, 0.00231, 3.0), (5, 0.0023, 2.0)], 5, 5),
    ],
)
def test_the_near_optimal_model_is_the_cheapest_that_is_not_worse(make, trials, best, chosen):
    answer = make(*(("stft", depth, mean, joules(cost)) for depth, mean, cost in trials))
    assert (answer.best.trial.depth, answer.near_optimal.trial.depth) == (best, chosen)


def test_every_cost_is_read_in_its_unit(make, tmp_path):
    costs = {
        "separation_joules": 2.5,
        "training_joules": 4000.0,
        "gflop_per_second": 7.0,
        "peak_bytes": 3_000_000_000,
        "separation_seconds": 0.02,
    }
    make(("stft", 3, 0.002, {"costs": costs}))
    search = read_search(tmp_path / "search")
    found = {name: analyse(search, name).near_optimal.cost for name in COSTS}
    assert found == {
        name: pytest.approx(value)
        for name, value in {"joules": 2.5, "training-joules": 4, "gflop": 7, "memory": 3, "latency": 20}.items()
    }


def test_deeper_is_not_better(make):
    answer = make(("waveform", 2, 0.0034), ("waveform", 3, 0.003), ("waveform", 5, 0.00299), ("waveform", 6, 0.00301))
    [depths] = answer.depths
    assert depths.enough.depth == 3
    assert [(one.deeper.depth, one.is_better, one.is_worse) for one in depths.against] == [
        (6, False, False),
        (5, False, False),
    ]
    difference = depths.against[0].difference
    assert difference.value == pytest.approx(0.00001, rel=1e-6)
    text = next(text for text in answer_text(answer) if "depth 6" in text)
    assert text == (
        "waveform: depth 6 is not better than depth 3 here (difference +0.000010, 95% interval "
        f"{difference.low:+.6f} to {difference.high:+.6f})."
    )
    assert difference.low < 0 < difference.high
    assert any(
        text.startswith("waveform: depth 5 is better than depth 2 (difference -0.00041") for text in answer_text(answer)
    )


def test_deeper_is_better(make):
    answer = make(("stft", 1, 0.0040), ("stft", 2, 0.0035), ("stft", 3, 0.0030))
    [depths] = answer.depths
    assert (depths.enough.depth, depths.against) == (3, ())
    assert not any("not better" in text for text in answer_text(answer))
    assert any(text.startswith("stft: depth 3 is better than depth 2 (") for text in answer_text(answer))


def test_deeper_is_worse(make):
    answer = make(("stft", 4, 0.0023), ("stft", 7, 0.0030))
    assert any("depth 7 is not better than depth 4 here, but worse (" in text for text in answer_text(answer))


def test_only_depths_with_equal_knobs_are_compared(make):
    answer = make(
        ("stft", 2, 0.0030, {"knobs": {"base_filters": 8}}),
        ("stft", 3, 0.0023, {"knobs": {"base_filters": 8}}),
        ("stft", 4, 0.0023, {"knobs": {"base_filters": 16}}),
        ("mel", 3, 0.0023),
        # The same again, worse: the better one stands for both.
        ("stft", 3, 0.0040, {"knobs": {"base_filters": 8}}),
    )
    [depths] = answer.depths
    assert (depths.name, depths.enough.depth) == ("stft base_filters=8", 3)


def test_what_hyperband_notes_separates_no_trials(make):
    notes = [{"tuner/epochs": epochs, "tuner/bracket": bracket} for epochs, bracket in ((4, 0), (4, 1), (2, 1))]
    answer = make(*(("stft", 2 + place, 0.003, {"knobs": knobs}) for place, knobs in enumerate(notes)))
    [depths] = answer.depths
    assert depths.name == "stft epochs=4"
    assert {candidate.trial.label for candidate in answer.candidates} == {
        f"stft {depth} epochs={epochs}" for depth, epochs in ((2, 4), (3, 4), (4, 2))
    }


def test_one_seed_is_said_to_be_one(make):
    one = answer_text(make(("stft", 2, 0.003), ("stft", 3, 0.0023), num_seeds=1))
    assert any("differences from run to run are not in these intervals" in text for text in one)


def test_several_seeds_are_in_the_intervals(make):
    assert "The intervals hold for other seeds and for other segments of such songs." in answer_text(
        make(("stft", 2, 0.003), ("stft", 3, 0.0023))
    )


def test_seeds_that_differ_much_hide_a_difference(make):
    alike = make(("stft", 2, 0.0024, {"seed_spread": 0.0003}), ("stft", 3, 0.0023, {"seed_spread": 0.0003}))
    assert alike.candidates[1].may_be_best


def test_the_best_is_measured_by_the_baselines(make):
    [best, *_] = answer_text(make(("stft", 2, 0.0025)))
    gains = [10 * math.log10(baseline / 0.0025) for baseline in (0.008, 0.005)]
    assert best == f"Best: stft 2, val_mse 0.002500, {gains[0]:.1f} dB below silence and {gains[1]:.1f} dB below " + (
        "mixture/num_sources."
    )


def test_a_best_that_is_above_a_baseline_has_learned_nothing(make):
    [best, *_] = answer_text(make(("stft", 2, 0.0060)))
    assert "1.2 dB below silence and 0.8 dB ABOVE mixture/num_sources" in best and "train longer" in best


def test_a_search_without_a_result(tmp_path):
    folder = write_search(tmp_path / "search")
    answer = analyse(read_search(folder))
    assert answer_text(answer) == ["No trial is completed: there is nothing to compare."]
    write_trial(folder, "stft", 3, errors_of(0.002, num_seeds=1), status="RUNNING")
    answer = analyse(read_search(folder))
    assert (answer.best, answer.near_optimal, answer.front) == (None, None, [])
    assert answer_text(answer) == ["No trial is completed (1 running): there is nothing to compare."]
    assert summary(answer)["trials"][0]["status"] == "running"


def test_a_single_result(make):
    answer = make(("stft", 2, 0.0025))
    assert answer.best is answer.near_optimal and answer.best.on_front and answer.depths == ()
    assert "nothing to compare it with" in answer_text(answer)[1]


def test_every_trial_stands_in_the_answer_once(tmp_path):
    answer = analyse(read_search(write_whole_search(tmp_path / "search")))
    assert [(name, text) for name, _, text in other_rows(answer)] == [
        ("waveform 9", "failed: out of memory & gone"),
        ("waveform 12", "not fitting: its plan of 91 GB exceeds the 80 GB that are free"),
        ("stft 7", "still running, 1 run done"),
    ]
    names = [name for name, *_ in table_rows(answer)]
    assert len(names) == len(set(names)) == 19 and names[-2:] == ["mixture/num_sources", "silence"]
    assert [row["trial_id"] for row in sorted(records(answer), key=lambda row: row["trial_id"])] == [
        f"{number:04d}" for number in range(20)
    ]
    assert answer_text(answer)[-1] == "Not in this answer (1 failed, 1 not fitting, 1 running)."


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_segments": 24}, "0000 .stft 2, 40 segments. and 0001 .stft 3, 24 segments. were judged on different"),
        ({"silence": 0.009}, "judged on different ones; search anew"),
    ],
)
def test_trials_that_say_nothing_about_each_other(tmp_path, options, message):
    folder = write_search(tmp_path / "search")
    write_trial(folder, "stft", 2, errors_of(0.003))
    silence = {"silence": options.pop("silence")} if "silence" in options else {}
    write_trial(folder, "stft", 3, errors_of(0.003, **options), **silence)
    with pytest.raises(UserError, match=message) as caught:
        analyse(read_search(folder))
    assert "\n" not in str(caught.value)


def test_costs_that_cannot_be_had(make):
    with pytest.raises(UserError, match="unknown cost 'euros'; choose one of joules, training-joules"):
        make(("stft", 2, 0.003), cost="euros")


def test_a_cost_that_was_not_measured(make):
    with pytest.raises(UserError, match="trial 0000 .stft 2. has no joules; choose another --cost: training-joules"):
        make(("stft", 2, 0.003, joules(None)))


def test_a_completed_trial_whose_runs_are_gone(tmp_path):
    folder = write_search(tmp_path / "search")
    for depth, errors in itertools.zip_longest((2, 3), [errors_of(0.003)], fillvalue=()):
        write_trial(folder, "stft", depth, errors)
    answer = analyse(read_search(folder))
    assert [one.trial.depth for one in answer.candidates] == [2]
    assert other_rows(answer) == [("stft 3", "0001", "completed, but its runs are gone")]
