"""Searches go on with the same command, and with one that asks for more; files that no search writes are refused."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from pipelines.errors import UserError
from tests.page_reader import read_page
from tests.tuner.searching import SECONDS_TO_WAIT, TINY, tiny_search
from tuner.report import main as report
from tuner.reporting.analysis import analyse
from tuner.reporting.answer import records
from tuner.search import main as search
from tuner.searching.records import COMPLETED, FAILED, read_search

NAMES = ["a [1] $b # %d :100: [bold]c", "x" * 255, os.fsdecode(b"caf\xe9 $")]


@pytest.fixture(scope="module")
def done(tmp_path_factory, write_songs):
    """A search of depth 1 that is done."""
    folder = tmp_path_factory.mktemp("done")
    search(tiny_search(write_songs(folder / "songs"), folder, "1"))
    return folder


@pytest.fixture
def again(done, tmp_path):
    """Gives the search a folder of its own, with some of its settings changed, and the arguments that made it."""

    def copy(name="tiny", **changed):
        shutil.copytree(done / "tiny", tmp_path / name, ignore=shutil.ignore_patterns("report.html"))
        path = tmp_path / name / "search.json"
        settings = {**json.loads(path.read_text()), **changed}
        path.write_text(json.dumps({key: value for key, value in settings.items() if value != "none"}))
        return tmp_path / name, tiny_search(done / "songs", tmp_path, "1", name)

    return copy


def record_of(folder, trial):
    return (folder / f"trial_{trial}" / "seed_0" / "record.json").read_bytes()


@pytest.mark.slow
def test_nothing_that_was_not_given_is_compared(run, again):
    # As searches were written before, on a machine of other memory.
    folder, flags = again(memory_bytes=12345, memory="none", search_seed="none", max_trials=20)
    before = record_of(folder, 0)
    outcome = run("tuner.search", *flags, "--workers", "2", timeout=SECONDS_TO_WAIT)
    assert outcome.status == 0, outcome.stderr
    assert "going on" in outcome.stderr and record_of(folder, 0) == before
    with pytest.raises(UserError, match="memory was 12345000000 and is null"):
        search(again("given", memory=12345000000)[1])


@pytest.mark.slow
def test_more_depths_and_seeds_go_on_with_what_is_there(again, capsys):
    folder, flags = again()
    before = record_of(folder, 0)
    search([*flags, "--depths", "1-2", "--seeds", "2"])
    assert "going on with more: depths.waveform was [1] and is [1, 2]; seeds was 1 and is 2" in capsys.readouterr().err
    assert record_of(folder, 0) == before
    rows = json.loads((folder / "trials.json").read_text())["trials"]
    assert sorted((row["depth"], row["seeds"], row["status"]) for row in rows) == [
        (1, "0 1", COMPLETED),
        (2, "0 1", COMPLETED),
    ]
    state = json.loads((folder / "trial_0" / "trial.json").read_text())
    values = [run.record["metrics"]["val_mse"] for run in read_search(folder).trials[0].runs]
    assert state["score"] == pytest.approx(sum(values) / 2) and values[0] != values[1]
    for less, message in (
        (["--depths", "1", "--seeds", "2"], "depths.waveform was [1, 2] and is [1]"),
        (["--depths", "1-2", "--seeds", "1"], "seeds was 2 and is 1"),
    ):
        with pytest.raises(UserError) as caught:
            search([*flags, *less])
        assert message in str(caught.value) and "go on with the old ones, or take another --name" in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "more", "message"),
    [
        (
            {"strategy": "random", "max_trials": 1, "search_seed": 1},
            ["--max-trials", "1"],
            "raise --max-trials as well",
        ),
        ({"strategy": "random", "max_trials": 20, "search_seed": 2}, [], "search_seed was 2 and is 1"),
        (
            {"strategy": "bayesian", "max_trials": 9, "search_seed": 1},
            ["--max-trials", "8"],
            "max_trials was 9 and is 8",
        ),
        ({"strategy": "hyperband", "search_seed": 1}, [], "hyperband has chosen among what there was"),
        ({"knobs": ["base_filters=2,3"]}, ["--knob", "base_filters=2"], "knobs.base_filters was [2, 3] and is [2]"),
        ({}, ["--knob", "base_filters=2,3"], "knobs.base_filters was null and is [2, 3]"),
        ({"knobs": ["no knob"]}, ["--knob", "base_filters=2"], 'knobs was ["no knob"] and is'),
        ({"depths": 3}, [], "depths was 3 and is"),
        ({"configs": {"waveform": {"family": []}}}, [], "configs.waveform.family was [] and is"),
    ],
)
def test_what_cannot_grow_is_one_line(again, changed, more, message):
    _, flags = again(**changed)
    with pytest.raises(UserError) as caught:
        search([*flags, "--depths", "1-2", "--strategy", changed.get("strategy", "grid"), *more])
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_run_that_fails_is_recorded_with_its_reason(tmp_path, write_songs, monkeypatch):
    def fail(command, **options):
        return start([sys.executable, "-c", "import sys; sys.exit('error: it broke')"], **options)

    start = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", fail)
    with pytest.raises(UserError, match="has a result, so there is no report: 1 failed, the first, .*it broke"):
        search(tiny_search(write_songs(tmp_path / "songs"), tmp_path, "1"))


@pytest.mark.slow
def test_a_failure_says_why_and_values_that_are_added_are_tried(tmp_path, songs, capfd):
    small = [*TINY, "--steps-per-epoch", "1", "--data", str(songs), "--searches", str(tmp_path), "--depths", "1"]
    with pytest.raises(UserError) as caught:
        search([*small, "--knob", "learning_rate=1e30"])
    folder = tmp_path / "depth"
    assert str(caught.value).startswith(
        f"no model of {folder} has a result, so there is no report: 1 failed, the first, "
    )
    assert not list(folder.glob("*.html"))
    search([*small, "--knob", "learning_rate=1e30, 1"])
    said = capfd.readouterr()
    assert "Traceback" not in said.err
    failed, completed = read_search(folder).trials
    assert (failed.status, completed.status, completed.values["learning_rate"]) == (FAILED, COMPLETED, 1.0)
    assert "nan" in failed.reason and failed.reason in str(caught.value)
    row = [failed.label, failed.trial_id, f"failed: {failed.reason}"]
    assert row in read_page(folder / "report.html").rows
    assert failed.reason in " ".join(said.out.split())
    assert failed.reason in [row["reason"] for row in json.loads((folder / "trials.json").read_text())["trials"]]
    # As earlier versions have left such a trial.
    (folder / "trial_0" / "outcome.json").unlink(missing_ok=True)
    assert read_search(folder).trials[0].reason


@pytest.mark.parametrize("name", NAMES)
def test_any_name_goes_on_and_is_shown(again, name, capsys):
    folder, flags = again(name)
    search(flags)
    shown = name.encode(errors="backslashreplace").decode()
    assert "".join(shown.split()) in "".join(capsys.readouterr().out.split())
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert f"<title>Depth search: {shown}</title>" in text
    report([str(folder), "--no-audio"])
    assert [trial.status for trial in read_search(folder).trials] == [COMPLETED]


@pytest.mark.parametrize("name", NAMES)
def test_models_of_any_name_have_names_that_fit(again, name):
    from tuner.reporting.export import model_name

    folder, _ = again(name)
    found = read_search(folder)
    exported = model_name(found, found.trials[0])
    assert exported.endswith("_waveform_depth1") and len(exported.encode()) <= 255


def test_a_name_that_is_too_long_is_one_line(again):
    _, flags = again()
    with pytest.raises(UserError, match="can be no folder of a search: File name too long; take another --name"):
        search([*flags, "--name", "x" * 256])


DAMAGE = {
    "cut": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "no UTF-8": lambda data: data.replace(b'"', b'"\xff', 1),
    "another": lambda data: b"[]",
    "without keys": lambda data: b"{}",
    "deep": lambda data: b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "long number": lambda data: b'{"a":' + b"1" * 5000 + b"}",
}


@pytest.mark.parametrize("file", ["search.json", "oracle.json", "trial_0/trial.json", "trial_0/seed_0/record.json"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_one_line(again, file, damage):
    folder, flags = again()
    path = folder / file
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    with pytest.raises(UserError) as caught:
        search(flags)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
    if file != "oracle.json" and (file, damage) != ("search.json", "without keys"):
        with pytest.raises(UserError, match="is damaged"):
            report([str(folder), "--no-audio"])
    # Nothing was done to what is whole.
    assert (folder / "trial_0" / "seed_0" / "checkpoints" / "best.weights.h5").exists()


def test_runs_that_the_oracle_does_not_know_are_kept(again):
    folder, flags = again()
    shutil.copytree(folder / "trial_0", folder / "trial_7")
    trial = json.loads((folder / "trial_7" / "trial.json").read_text())
    (folder / "trial_7" / "trial.json").write_text(json.dumps({**trial, "trial_id": "7"}))
    with pytest.raises(UserError, match="oracle.json does not know trial_7, which has runs"):
        search(flags)
    assert (folder / "trial_7" / "seed_0" / "record.json").exists()


def test_trials_stand_in_the_order_of_their_numbers(again):
    folder, _ = again()
    trial = json.loads((folder / "trial_0" / "trial.json").read_text())
    for trial_id in ("1", "02", "10"):
        (folder / f"trial_{trial_id}").mkdir()
        (folder / f"trial_{trial_id}" / "trial.json").write_text(json.dumps({**trial, "trial_id": trial_id}))
    assert [trial.trial_id for trial in read_search(folder).trials] == ["0", "1", "02", "10"]
    assert len(records(analyse(read_search(folder)))) == 4
