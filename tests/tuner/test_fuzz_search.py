"""Files of a real search, changed at random: each is read, or refused in one line, whoever reads it."""

import collections
import copy
import json
import pathlib
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.errors import UserError
from sepnet.config.run_folder import Run
from tests.tuner.searching import tiny_search
from tuner.reporting import page
from tuner.reporting.analysis import analyse
from tuner.reporting.answer import answer_text, print_answer, summary
from tuner.reporting.export import model_name
from tuner.reporting.publish import write_report
from tuner.search import main
from tuner.searching.depth_tuner import DepthTuner
from tuner.searching.oracles import make_oracle
from tuner.searching.records import read_search
from tuner.searching.search_space import Space, parse_knobs
from tuner.searching.settings import is_new

KNOBS = ("base_filters=2,3000",)
SPACE = Space({"waveform": range(1, 2)}, parse_knobs(KNOBS))
JUNK = [None, True, 0, -1, 3, 2**70, 10**4000, 0.5, -0.5, 1e-300, 1e99, 1e308, float("nan"), float("inf"), "", "0", "1"]
JUNK += ["x", "é\ud800\n", "COMPLETED", "FAILED", "a" * 9999, [], {}, [[]], [None], {"": {}}, {"a": [0]}, ["0", "0"]]
# Too deep for Python's own writer.
DEEP, DEEPEST = "<deep>", b"[" * 5000 + b"]" * 5000
QUICK, MANY = 200, 20_000


@pytest.fixture(scope="module")
def searched(tmp_path_factory, write_songs):
    """The text files that a real Hyperband search has left, one model of which did not fit."""
    folder = tmp_path_factory.mktemp("fuzz")
    flags = tiny_search(write_songs(folder / "songs"), folder, "1", "real")
    knobs = [text for knob in KNOBS for text in ("--knob", knob)]
    main([*flags, "--budget", "3epochs", "--strategy", "hyperband", "--memory", "2GB", *knobs])
    whole = folder / "whole"
    shutil.copytree(folder / "real", whole, ignore=shutil.ignore_patterns("checkpoints", "logs", "*.png", "report.*"))
    names = ("search.json", "oracle.json", "trial.json", "outcome.json", "record.json", "config.json")
    files = sorted(path.relative_to(whole) for path in whole.rglob("*.json") if path.name in names)
    assert {path.name for path in files} == set(names)
    return whole, files


def places_in(value, place=()):
    """The ways from a JSON value to each of its parts."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield (*place, key)
        yield from places_in(part, (*place, key))


@st.composite
def changes(draw):
    """Changes the bytes of a file, or what stands in it."""
    position, junk, length = draw(st.floats(0, 1)), draw(st.sampled_from([*JUNK, DEEP])), draw(st.integers(0, 40))
    kind = draw(st.sampled_from(["replace", "replace", "replace", "remove", "double", "bytes", "cut", "insert"]))
    noise = draw(st.binary(min_size=1, max_size=8))

    def change(data: bytes) -> bytes:
        at = int(position * len(data))
        if kind == "cut":
            return data[:at]
        if kind == "insert":
            return data[:at] + noise + data[at:]
        if kind == "bytes":
            return data[:at] + noise + data[at + length :]
        value = json.loads(data)
        *way, last = (places := list(places_in(value)))[min(int(position * len(places)), len(places) - 1)]
        holder = value
        for key in way:
            holder = holder[key]
        if kind == "replace":
            holder[last] = junk
        elif kind == "remove":
            del holder[last]
        elif isinstance(holder, list):
            holder.append(copy.deepcopy(holder[last]))
        else:
            holder[f"{last}2"] = copy.deepcopy(holder[last])
        return json.dumps(value).encode().replace(json.dumps(DEEP).encode(), DEEPEST)

    return change


def read(folder: pathlib.Path, *, draws: bool) -> None:
    """Reads a search as the commands do that show it."""
    found = read_search(folder)
    answer = analyse(found)
    json.dumps(summary(answer))
    page.report_page(answer, {}, [])
    assert all("\n" not in text for text in answer_text(answer))
    print_answer(analyse(found, "gflop"))
    assert all(Run(run.folder).config.to_json() for trial in found.trials for run in trial.runs)
    assert all(len(model_name(found, trial).encode()) < 9999 for trial in found.trials)
    if draws:
        write_report(analyse(read_search(folder)), audio=False)


def go_on(folder: pathlib.Path, given) -> None:
    """Goes on with a search as its command does, but that no model is trained."""
    is_new(folder, given, lambda text: None)
    oracle = make_oracle("hyperband", SPACE, max_trials=None, max_epochs=3, seed=1)
    tuner = DepthTuner(
        oracle,
        bases={},
        settings=given,
        sample_rate=8000,
        seeds=range(1),
        memory_bytes=2 * 10**9,
        try_anyway=False,
        device="cpu",
        report=print,
        directory=str(folder.parent),
        project_name=folder.name,
    )
    tuner.oracle.verbose = 0
    for _ in range(12):
        trial = oracle.create_trial("tuner0")
        if trial.status != "RUNNING":
            break
        oracle.update_trial(trial.trial_id, {"val_mse": 1.0})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
    read_search(folder)


def try_changes(searched, folder: pathlib.Path, num_cases: int, **options) -> collections.Counter:
    """Counts how often what was changed was read, and how often refused; anything else is an error of its own."""
    whole, files = searched
    asked = json.loads((whole / "search.json").read_text())
    counts = collections.Counter()

    @settings(max_examples=num_cases, deadline=None, suppress_health_check=[HealthCheck.too_slow], **options)
    @given(st.sampled_from(files), changes(), st.integers(0, 30))
    def try_one(file, change, draws):
        changed = change((whole / file).read_bytes())
        for use in (lambda: read(folder, draws=draws == 0 and num_cases > QUICK), lambda: go_on(folder, asked)):
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(whole, folder)
            (folder / file).write_bytes(changed)
            try:
                use()
                counts["read"] += 1
            except UserError as error:
                assert str(error) and "\n" not in str(error)
                counts["refused"] += 1

    try_one()
    return counts


@pytest.mark.slow
def test_files_that_were_changed_are_read_or_refused(searched, tmp_path):
    counts = try_changes(searched, tmp_path / "whole", QUICK, derandomize=True)
    assert counts["read"] > QUICK / 10 and counts["refused"] > QUICK / 2


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_more(searched, tmp_path):
    print(try_changes(searched, tmp_path / "whole", MANY))
