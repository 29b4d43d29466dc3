"""The best depth by budget: counted again from the histories, and as the report shows it."""

import csv
import itertools
import json
import math
import statistics

import numpy as np
import pytest
import scipy.stats

from tests.page_reader import read_page
from tests.tuner.synthetic import errors_of, write_search, write_trial
from tuner.reporting.analysis import analyse
from tuner.reporting.answer import BUDGET_HEADINGS, answer_text, budget_rows, print_answer
from tuner.reporting.publish import write_report
from tuner.searching.records import read_search

DEPTHS, SEEDS, SHARES = range(1, 6), range(3), (0.125, 0.25, 0.5, 1)


def write(folder, name, depth, histories, minutes=None):
    """A trial whose runs have these minutes and `val_mse`, at the ends of their epochs."""
    write_trial(folder, name, depth, errors_of(0.002, num_seeds=len(histories)), histories=histories, minutes=minutes)


def read_ends(run, limit):
    """Minutes and `val_mse` of a run, as its files have them; the validation behind its budget is not counted."""
    with (run / "spent.csv").open() as spent, (run / "history.csv").open() as history:
        rows = zip(csv.DictReader(spent), csv.DictReader(history), strict=True)
        return [(min(float(end["seconds"]) / 60, limit or math.inf), float(mse["val_mse"])) for end, mse in rows]


def students(values):
    """Mean and 95% interval, by scipy."""
    return statistics.mean(values), *scipy.stats.t.interval(
        0.95, len(values) - 1, loc=statistics.mean(values), scale=scipy.stats.sem(values)
    )


@pytest.fixture(scope="module", params=[10.0, None], ids=["minutes", "epochs"])
def searched(request, tmp_path_factory):
    """A search of two kinds whose deeper models are slower, and lower in the end; and its budget in minutes."""
    folder, generator = write_search(tmp_path_factory.mktemp("budgets") / "search"), np.random.default_rng(0)
    for name, depth in itertools.product(("stft", "waveform"), DEPTHS):
        histories = []
        for _ in SEEDS:
            ends, lag = [], 0.15 * 1.7**depth
            while not ends or (ends[-1] < request.param if request.param else len(ends) < 12):
                ends.append((ends[-1] if ends else 0.0) + lag * generator.uniform(0.9, 1.1))
            floor = 0.003 - 0.0003 * depth
            histories.append([(end, floor + 0.004 * math.exp(-end) + 3e-5 * generator.normal()) for end in ends])
        write(folder, name, depth, histories, request.param)
    return folder, request.param


def test_the_table_is_counted_again(searched):
    folder, limit = searched
    write_report(analyse(read_search(folder)), audio=False)
    with (folder / "budgets.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(SHARES) * len(DEPTHS)
    shown, told = iter(budget_rows(analyse(read_search(folder)))), set()
    ends = {
        (trial.representation, trial.depth, seed): read_ends(folder / f"trial_{trial.trial_id}/seed_{seed}", limit)
        for trial in read_search(folder).trials
        for seed in SEEDS
    }
    whole = limit or min(of_run[-1][0] for of_run in ends.values())
    for name, share in itertools.product(("stft", "waveform"), SHARES):
        minutes, lowest = share * whole, {}
        for depth, seed in itertools.product(DEPTHS, SEEDS):
            until = [mse for end, mse in ends[name, depth, seed] if end <= minutes]
            lowest.setdefault(depth, []).append(min(until, default=None))
        known = {depth: values for depth, values in lowest.items() if None not in values}
        best = min(known, key=lambda depth: sum(known[depth]))
        found = {
            int(row["depth"]): row
            for row in rows
            if row["representation"] == name and float(row["minutes"]) == pytest.approx(minutes)
        }
        may_be_best = [best]
        for depth in DEPTHS:
            row = found.pop(depth)
            if depth not in known:
                assert row["val_mse"] == row["may_be_best"] == ""
                continue
            differences = [value - other for value, other in zip(known[depth], known[best], strict=True)]
            for key, values in (("val_mse", known[depth]), ("behind_best", differences)):
                value, low, high = students(values) if any(values) else (0.0, 0.0, 0.0)
                assert float(row[key]) == pytest.approx(value, abs=1e-12)
                assert [float(row[f"{key}_{end}"]) for end in ("low", "high")] == pytest.approx(
                    [low, high], abs=0.05 * (high - low)
                )
            # Nearer to zero, so many resamples may say one thing and the formula another.
            if depth != best and abs(low) > 0.05 * (high - low):
                told.add(low <= 0)
                assert row["may_be_best"] == str(low <= 0)
            if depth != best and row["may_be_best"] == "True":
                may_be_best.append(depth)
        assert not found
        kind, shown_minutes, depths, value, interval, slow = next(shown)
        assert (kind, float(shown_minutes)) == (name, pytest.approx(minutes, rel=5e-3))
        may_be_best.sort(key=lambda depth: sum(known[depth]))
        assert depths.replace(" or ", ", ").split(", ") == list(map(str, may_be_best))
        low, high = students(known[best])[1:]
        assert float(value) == pytest.approx(statistics.mean(known[best]), abs=6e-6)
        assert list(map(float, interval.split("–"))) == pytest.approx([low, high], abs=6e-6 + 0.05 * (high - low))
        assert slow == ", ".join(str(depth) for depth in DEPTHS if depth not in known)
    assert told == {True, False} and not list(shown)


def test_the_best_depth_moves_and_the_report_shows_how(tmp_path, capsys):
    folder = write_search(tmp_path / "search")
    write(folder, "stft", 2, [[(0.5, 0.004), (1, 0.003), (4, 0.0029)]] * 2, 4.0)
    write(folder, "stft", 3, [[(0.5, 0.0041 + sign), (1, 0.0029 - sign), (4, 0.0031)] for sign in (0, 0.0002)], 4.0)
    # The last validation ends behind the budget, which it is no part of.
    write(folder, "stft", 5, [[(1.5, 0.005), (3, 0.0028), (4.7, 0.0010)]] * 2, 4.0)
    write(folder, "mel", 2, [[(4, 0.002)]] * 2, 4.0)
    print_answer(analyse(read_search(folder), "joules"))
    said = capsys.readouterr().out
    page = read_page(write_report(analyse(read_search(folder)), audio=False))
    rows = [
        ["stft", "0.5", "2 or 3", "0.00400", "0.00400–0.00400", "5"],
        ["stft", "1", "3 or 2", "0.00280", "0.00153–0.00407", "5"],
        ["stft", "2", "3 or 2", "0.00280", "0.00153–0.00407", ""],
        ["stft", "4", "5", "0.00100", "0.00100–0.00100", ""],
    ]
    at = page.rows.index(list(BUDGET_HEADINGS))
    near = pytest.approx([0.0028 - 1e-4 * 12.7, 0.0028 + 1e-4 * 12.7], rel=0.2)
    for row, expected in zip(page.rows[at + 1 : at + 5], rows, strict=True):
        assert [*row[:4], row[5]] == [*expected[:4], expected[5]]
        assert row[4] == expected[4] or list(map(float, row[4].split("–"))) == near
        assert " ".join(filter(None, row)) in " ".join(said.split())
    assert [image["alt"][:35] for image in page.named("img")].count("Lowest validation error by minutes ") == 1
    written = json.loads((folder / "trials.json").read_text())["budgets"]
    assert [(row["depth"], row["may_be_best"]) for row in written if row["minutes"] == 4] == [
        (5, True),
        (3, False),
        (2, False),
    ]


def test_one_seed_has_no_interval(tmp_path):
    folder = write_search(tmp_path / "search")
    for depth in (1, 2):
        write(folder, "stft", depth, [[(1, 0.003 / depth)]])
    assert budget_rows(analyse(read_search(folder)))[-1] == ("stft", "1", "2", "0.00150", "one seed", "")


@pytest.mark.parametrize("spent", [None, "epoch,seconds,joules\n1,nan,nan\n2,60,9\n", "epoch,seconds,joules\n1,60,9\n"])
def test_histories_without_times_are_one_line(tmp_path, spent):
    """Of older versions, or of a run that such a version began."""
    folder = write_search(tmp_path / "search")
    for depth in (1, 2):
        write(folder, "stft", depth, [[(1, 0.003), (2, 0.002)]])
    path = folder / "trial_0001" / "seed_0" / "spent.csv"
    path.unlink() if spent is None else path.write_text(spent)
    page = read_page(write_report(analyse(read_search(folder)), audio=False))
    [text] = [text for text in answer_text(analyse(read_search(folder))) if "budget" in text]
    assert text.startswith("How the best depth moves with the budget is not known: ") and str(path) in text
    assert len(page.named("img")) == 4 and list(BUDGET_HEADINGS) not in page.rows
    assert (folder / "budgets.csv").read_text() == ""
    assert json.loads((folder / "trials.json").read_text())["budgets"] == []
