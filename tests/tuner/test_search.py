"""The search as a user runs it, with real processes that are killed, fail, and take too much."""

import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import types

import pytest
import tensorflow as tf

from pipelines.errors import UserError
from pipelines.files import folder_lock
from sepnet.config.config import Config
from sepnet.config.data import Data
from tests.conftest import REPOSITORY
from tests.tuner.searching import SECONDS_TO_WAIT, start, status_of, trials_of, wait_for
from tuner.search import main
from tuner.searching.depth_tuner import DepthTuner
from tuner.searching.records import COMPLETED, FAILED, NOT_FITTING, RUNNING, read_search
from tuner.searching.settings import check_as_begun
from tuner.searching.workers import _own_gpu

ALL = [(1, COMPLETED), (2, COMPLETED)]


@pytest.mark.parametrize("moment", [pytest.param("between trials", marks=pytest.mark.slow), "within a trial"])
def test_a_search_that_is_killed_goes_on(run, flags, tmp_path, moment):
    flags, folder = [*flags, "--budget", "2epochs"], tmp_path / "tiny"
    search = start(flags)
    history = folder / "trial_1" / "seed_0" / "history.csv"
    if moment == "between trials":
        wait_for(lambda: status_of(folder / "trial_0" / "trial.json") == "COMPLETED")
    else:
        wait_for(history.exists)
    os.kill(search.pid, signal.SIGKILL)
    search.wait()
    before = (folder / "trial_0" / "seed_0" / "record.json").read_bytes()
    first_epoch = history.read_text().splitlines()[:2] if moment == "within a trial" else []

    outcome = run("tuner.search", *flags, timeout=SECONDS_TO_WAIT)
    assert outcome.status == 0, outcome.stderr
    assert "going on" in outcome.stderr
    assert trials_of(folder) == ALL
    # What was done is not done again.
    assert (folder / "trial_0" / "seed_0" / "record.json").read_bytes() == before
    lines = history.read_text().splitlines()
    assert lines[: len(first_epoch)] == first_epoch and len(lines) == 3
    assert (folder / "report.html").exists()


def test_a_search_that_goes_on_elsewhere_is_left_alone(flags, tmp_path, capsys):
    with folder_lock(tmp_path / "tiny"), pytest.raises(UserError, match="another process works in .*tiny; wait"):
        main(flags)
    assert not list((tmp_path / "tiny").iterdir()) and not capsys.readouterr().err


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"KERASTUNER_ORACLE_IP": "127.0.0.1"}, "KERASTUNER_ORACLE_PORT is not set; set all of KERASTUNER_ORACLE_IP, "),
        ({"KERASTUNER_TUNER_ID": "chief"}, "KERASTUNER_ORACLE_IP is not set; set all of "),
        (
            {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": "x", "KERASTUNER_TUNER_ID": "chief"},
            "KERASTUNER_ORACLE_PORT is 'x', which is no port; give that of the chief",
        ),
        ({"SEPNET_WORKER_SECONDS": "x"}, "SEPNET_WORKER_SECONDS is 'x'; give seconds, such as 30"),
    ],
)
def test_variables_of_half_a_cluster_are_refused(flags, monkeypatch, environment, message):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        main(flags)


@pytest.mark.slow
def test_a_third_start_does_nothing_and_other_settings_are_refused(run, flags, tmp_path):
    assert run("tuner.search", *flags[:-1], "1-1", timeout=SECONDS_TO_WAIT).status == 0
    again = run("tuner.search", *flags[:-1], "1-1", "--export", "best", "--saved-models", tmp_path / "models")
    assert again.status == 0, again.stderr
    contract = json.loads((tmp_path / "models/tiny_waveform_depth1/1/assets.extra/sepnet.json").read_text())
    assert contract["record"]["costs"]["separation_joules"] > 0
    assert contract["record"]["metrics"]["val_mse"] == contract["metrics"]["val_mse"]
    other = run("tuner.search", *flags, "--learning-rate", "0.5")
    assert other.status == 2
    assert "depths.waveform was [1] and is [1, 2]" in other.stderr and "learning_rate" in other.stderr


@pytest.mark.slow
def test_failures_in_a_row_are_recorded_and_the_search_goes_on(run, flags, tmp_path):
    """Three that diverge, and one that does not."""
    knob = ["--knob", "learning_rate=1e30,1e31,1e32,0.001"]
    outcome = run("tuner.search", *flags[:-1], "1", *knob, timeout=SECONDS_TO_WAIT)
    assert outcome.status == 0, outcome.stderr
    trials = read_search(tmp_path / "tiny").trials
    assert [trial.status for trial in trials] == [FAILED] * 3 + [COMPLETED]
    assert all("the loss is" in trial.reason and "at step" in trial.reason for trial in trials[:3])


def test_what_does_not_fit_is_not_started_and_what_takes_too_much_is_killed(run, flags, tmp_path):
    small = [*flags[:-1], "1", "--memory", "300MB"]
    assert run("tuner.search", *small).status == 0
    [trial] = read_search(tmp_path / "tiny").trials
    assert trial.status == NOT_FITTING and "of 0.30 GB, by its plan" in trial.reason
    assert not list((tmp_path / "tiny" / "trial_0").glob("seed_*"))
    outcome = run("tuner.search", *small, "--try-anyway", "--name", "anyway", timeout=SECONDS_TO_WAIT)
    assert outcome.status == 2 and "has a result, so there is no report: 1 failed" in outcome.stderr
    [trial] = read_search(tmp_path / "anyway").trials
    assert trial.status == FAILED and "0.30 GB that --memory allows, and was killed" in trial.reason


@pytest.mark.slow
def test_a_trial_that_cannot_be_built_fails_alone(run, flags, tmp_path):
    knobs = ["--padding", "valid", "--knob", "up_kernel_size=4,5"]
    outcome = run("tuner.search", *flags[:-1], "1", *knobs, timeout=SECONDS_TO_WAIT)
    assert outcome.status == 0, outcome.stderr
    failed, completed = read_search(tmp_path / "tiny").trials
    assert (failed.status, completed.status) == (FAILED, COMPLETED)
    assert "does not go with kernels" in failed.reason


def workers_of(search: subprocess.Popen) -> list[int]:
    """Process numbers of the workers that a search has started."""
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(search.pid)], capture_output=True, text=True)
    return [int(pid) for pid in children.stdout.split()]


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["worker", "chief"])
def test_workers_and_chiefs_may_die(run, flags, tmp_path, victim):
    several, quick = [*flags, "--workers", "2"], {"SEPNET_WORKER_SECONDS": "6"}
    search = start(several, **quick)
    folder = tmp_path / "tiny"
    wait_for(lambda: list(folder.glob("trial_*/seed_0/config.json")))
    workers = workers_of(search)
    os.kill(workers[0] if victim == "worker" else search.pid, signal.SIGKILL)
    if victim == "worker":
        assert search.wait(timeout=SECONDS_TO_WAIT) == 0
    else:
        search.wait()
        wait_for(lambda: not any(pathlib.Path(f"/proc/{worker}").exists() for worker in workers))
        outcome = run("tuner.search", *several, timeout=SECONDS_TO_WAIT, **quick)
        assert outcome.status == 0, outcome.stderr
    assert sorted(trials_of(folder)) == ALL


def test_songs_are_found_as_they_were_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "search" / "trial_0").mkdir(parents=True)
    settings = {"strategy": "grid", "depths": {"stft": [1]}}
    (tmp_path / "search" / "search.json").write_text(json.dumps(settings))
    search = types.SimpleNamespace(bases={"stft": Config(data=Data(data="~/songs"))}, settings=settings)

    def look():
        DepthTuner._refuse_to_go_on_without(search, tmp_path / "search" / "trial_0", {"representation": "stft"})

    with pytest.raises(UserError, match="the songs ~/songs are no longer there; put them back"):
        look()
    (tmp_path / "songs").mkdir()
    look()


def test_workers_have_the_options_of_their_chief(tmp_path):
    settings = {"strategy": "grid", "depths": {"stft": [1, 2]}, "seeds": 3, "memory": None}
    (tmp_path / "search.json").write_text(json.dumps(settings))
    # Each machine has its own.
    check_as_begun(tmp_path, {**settings, "memory": 10**9})
    with pytest.raises(UserError, match="seeds is 1, and 3 there; give its workers those of its chief"):
        check_as_begun(tmp_path, {**settings, "seeds": 1})


def test_each_worker_has_one_of_the_gpus_that_were_given(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: ["gpu", "gpu"])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [_own_gpu(index)["CUDA_VISIBLE_DEVICES"] for index in range(3)] == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert [_own_gpu(index)["CUDA_VISIBLE_DEVICES"] for index in range(3)] == ["2", "3", "2"]


@pytest.mark.slow
def test_songs_that_vanish_stop_the_search(run, flags, songs, tmp_path):
    search = start(flags)
    wait_for(lambda: status_of(tmp_path / "tiny" / "trial_0" / "trial.json") == "COMPLETED")
    songs.rename(tmp_path / "elsewhere")
    assert search.wait(timeout=SECONDS_TO_WAIT) == 2
    without = run("tuner.search", *flags)
    assert without.status == 2 and len(without.stderr.splitlines()) == 1
    assert f"no such folder: {songs}" in without.stderr
    (tmp_path / "elsewhere").rename(songs)
    outcome = run("tuner.search", *flags, timeout=SECONDS_TO_WAIT)
    assert outcome.status == 0, outcome.stderr
    assert trials_of(tmp_path / "tiny") == ALL


def run_with_little_room(flags, num_bytes):
    """Runs a search that may write no file larger than so; to its processes that is like a disk that is full."""
    return subprocess.run(
        [sys.executable, "-m", "tuner.search", *flags],
        cwd=REPOSITORY,
        # JAX, where a test has imported it, sets how much TensorFlow says; a user's shell does not have it.
        env={name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS_TO_WAIT,
    )


@pytest.mark.slow
def test_no_space_stops_the_search_and_with_space_it_goes_on(run, flags, tmp_path):
    one, folder = [*flags[:-1], "1"], tmp_path / "tiny"
    # Not even its settings could be written.
    nothing = run_with_little_room(one, 100)
    assert nothing.returncode == 2 and not [path for path in folder.rglob("*") if path.is_file()]
    assert nothing.stderr.startswith("error: cannot write ") and len(nothing.stderr.splitlines()) == 1
    # Everything could be but the checkpoints of its runs.
    outcome = run_with_little_room(one, 8000)
    assert outcome.returncode == 2
    *_, line = outcome.stderr.splitlines()
    assert line.startswith(f"error: {folder} has no room left (") and line.endswith("type the command again")
    assert trials_of(folder) == [(1, RUNNING)] and not list(folder.rglob(".*"))
    outcome = run("tuner.search", *one, timeout=SECONDS_TO_WAIT)
    assert outcome.status == 0, outcome.stderr
    assert trials_of(folder) == [(1, COMPLETED)]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--depths", "3-2"], "--depths is '3-2', which is no depth"),
        (["--depths", "40"], "the largest depth of unet_1d is 9"),
        (["--budget", "soon"], "--budget is 'soon'; give what each run may spend"),
        (["--budget", "1.5epochs"], "epochs come whole"),
        (["--representations", "cepstrum"], "unknown representation 'cepstrum'"),
        (["--representations", "stft"], "--representations stft is made by unet_2d, which --families leaves out"),
        (["--depth", "3"], "--depth is what a search chooses; use --depths"),
        (["--frame-step", "64"], "--frame-step is no option of unet_1d"),
        (["--knob", "learning_rate"], "--knob is 'learning_rate'; give values as"),
        (["--knob", "colour=1,2"], "colour is no option of unet_1d"),
        (["--knob", "learning_rate=1e-4:1e-2"], "--strategy grid needs values for learning_rate"),
        (["--memory", "much"], "--memory is 'much'"),
        (["--seeds", "0"], "argument --seeds: '0' is no whole number above 0; give 1 or more"),
        (["--seeds", "9" * 20], f"argument --seeds: '{'9' * 20}' is above 1000; give a smaller one"),
        (["--strategy", "hyperband", "--budget", "2min"], "give the largest of them, such as 9epochs"),
    ],
)
def test_bad_input_gets_one_line(run, flags, more, message):
    outcome = run("tuner.search", *flags, *more)
    assert outcome.status == 2
    assert message in outcome.stderr
    assert len(outcome.stderr.strip().splitlines()) == 1
