"""The command as users start it: two processes, one of which may be killed; and what it says when it cannot start."""

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading

import psutil
import pytest
import requests

from pipelines.errors import UserError
from sepnet import serve as command_module
from sepnet.separation.remote_model import TOKEN_VARIABLE
from sepnet.serve import main as serve
from sepnet.serving import supervisor
from sepnet.serving.engine.options import ServeOptions, folder_prefix
from tests.conftest import REPOSITORY
from tests.sepnet.helpers import noise
from tests.sepnet.serving.conftest import eventually
from tests.sepnet.serving.lives import live
from tests.sepnet.serving.test_separate_route import encoded

GOOD = {"instances": [[[0.25, -0.25]] * 100]}


def start(saved_models, **options):
    """Starts the command at a free port."""
    return subprocess.Popen(
        [sys.executable, "-m", "sepnet.serve", str(saved_models), "--port", "0"],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.fixture(scope="module")
def command(saved_models):
    """`python -m sepnet.serve`, and its address."""
    process = start(saved_models)
    url = process.stdout.readline().strip()
    if re.fullmatch(r"http://127\.0\.0\.1:\d+", url):
        yield process, url
    process.kill()
    _, said = process.communicate()
    assert url, said


def serving_process(process):
    """The child that serves; Python's own helper of `spawn` is another."""
    children = psutil.Process(process.pid).children()
    return next((child for child in children if "spawn_main" in " ".join(child.cmdline())), None)


def predict(url):
    return requests.post(f"{url}/v1/models/unet_1d:predict", json=GOOD, timeout=600)


def test_a_killed_process_is_replaced_and_connections_wait_for_it(command):
    process, url = command
    # Asked while it starts: the port is there already.
    assert predict(url).status_code == 200
    first = serving_process(process)
    song = pathlib.Path(tempfile.mkdtemp(prefix=folder_prefix(first.pid)))
    first.kill()
    first.wait(60)
    eventually(lambda: serving_process(process))
    eventually(lambda: not song.exists())
    second = serving_process(process)
    # A process that fails by itself before it is ready would be the last.
    second.kill()
    assert predict(url).status_code == 200
    assert serving_process(process) not in (first, second)


def test_a_process_that_cannot_serve_is_the_last(run, tmp_path):
    (tmp_path / "tensorflow.py").write_text("raise ImportError('broken')")
    outcome = run("sepnet.serve", tmp_path, "--port", "0", PYTHONPATH=str(tmp_path))
    assert outcome.status == 1 and "ImportError: broken" in outcome.stderr
    assert outcome.stderr.endswith("the serving process ended with 1 before it could serve; giving up\n")
    assert "starting another" not in outcome.stderr


def test_a_process_that_could_serve_is_followed_by_another(monkeypatch, tmp_path, capfd):
    """However soon it ends: how fast a machine starts says nothing."""
    monkeypatch.setattr(supervisor, "_work", live)
    monkeypatch.setattr(supervisor.signal, "signal", lambda *_: None)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setattr(supervisor, "_listen", lambda _: listener)
        assert supervisor.supervise(ServeOptions(saved_models=tmp_path)) == 1
    assert capfd.readouterr().err.splitlines() == [
        "the serving process ended with 1; starting another",
        "the serving process ended with 1 before it could serve; giving up",
    ]


def test_sigterm_lets_running_requests_finish(command):
    process, url = command
    song = encoded(noise(12 * 60 * 8000, 2), 8000)
    answers = []

    def separate():
        with requests.post(f"{url}/separate?model=unet_2d&stem=drums", data=song, stream=True, timeout=600) as answer:
            has_begun.set()
            answers.append((answer.status_code, len(answer.raw.read())))

    has_begun = threading.Event()
    thread = threading.Thread(target=separate)
    thread.start()
    assert has_begun.wait(60)
    process.send_signal(signal.SIGTERM)
    eventually(lambda: requests.get(f"{url}/readyz", timeout=10).status_code == 503)
    late = predict(url)
    assert late.status_code == 503 and "shutting down" in late.json()["error"]
    thread.join()
    assert answers == [(200, 44 + 4 * 12 * 60 * 8000)]
    assert process.wait(30) == 0
    said = process.stderr.read()
    assert "loaded unet_1d, version 1\n" in said and "Traceback" not in said


@pytest.mark.slow
def test_the_second_interrupt_ends_at_once(saved_models):
    # Ctrl-C goes to all processes of a terminal.
    with start(saved_models, start_new_session=True) as process:
        url = process.stdout.readline().strip()
        song = encoded(noise(25 * 60 * 8000, 2), 8000)
        with requests.post(f"{url}/separate?model=unet_2d&stem=drums", data=song, stream=True, timeout=600) as answer:
            assert answer.status_code == 200
            os.killpg(process.pid, signal.SIGINT)
            eventually(lambda: requests.get(f"{url}/readyz", timeout=10).status_code == 503)
            os.killpg(process.pid, signal.SIGINT)
            # Without taking any of the stem: otherwise the server would wait until all of it is sent.
            assert process.wait(60) == 0
        assert "Traceback" not in process.stderr.read()


def test_what_hinders_the_start_is_said_in_one_line(run, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments, message in (
            ([tmp_path, "--port", port], f"cannot listen on 127.0.0.1 port {port}: Address already in use"),
            ([tmp_path / "nowhere"], "no such folder: .*nowhere"),
        ):
            outcome = run("sepnet.serve", *arguments)
            assert outcome.status == 2 and outcome.stdout == ""
            assert re.fullmatch(f"error: .*{message}.*\n", outcome.stderr), outcome.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([""], "an empty argument"),
        (["nowhere"], "no such folder: nowhere"),
        (["caf\udce9"], "no such folder: caf"),
        (["x" * 5000], "no such folder: xxx"),
        (["nul\0"], "no such folder: nul"),
        ([".", "--port", "x"], "'x' is no port"),
        ([".", "--port", "65536"], "'65536' is no port; expected 0 to 65535"),
        ([".", "--port", ""], "an empty argument after --port"),
        ([".", "--port", "9" * 5000], "is no port"),
        ([".", "--host", ""], "an empty argument after --host"),
        ([".", "--host", "a..b"], "cannot listen on a..b port 0"),
        ([".", "--host", "no such host"], "cannot listen on no such host port 0"),
        ([".", "--host", "[::1]"], r"cannot listen on \[::1\] port 0"),
        ([".", "--host", "192.0.2.1"], "cannot listen on 192.0.2.1 port 0: Cannot assign"),
        ([".", "--token", ""], "an empty argument after --token"),
        ([".", "--token", "t\u00fcr"], "the token holds something else"),
        ([".", "--label", "x"], "'x' is no label; expected NAME/LABEL=VERSION"),
        ([".", "--label", "demo=1"], "'demo=1' is no label"),
        ([".", "--label", "demo/stable"], "'demo/stable' is no label"),
        ([".", "--label", "demo/stable="], "is no label"),
        ([".", "--label", "demo/stable=-1"], "is no label"),
        ([".", "--label", "demo/stable=\u00b2"], "is no label"),
        ([".", "--label", "/stable=1"], "is no label"),
        ([".", "--label", f"demo/stable={'9' * 5000}"], "is no label"),
        ([".", "--label", "demo/a=1", "--label", "demo/a=2"], "--label demo/a was given 2 times"),
        ([".", "--max-batch", "0"], "'0' is no whole number above 0"),
        ([".", "--max-song-mb", "inf"], "'inf' is no whole number above 0"),
        ([".", "models"], "unrecognized arguments: models"),
    ],
)
def test_options_that_cannot_be_meant_are_refused_in_one_line(arguments, message, monkeypatch):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    with pytest.raises(UserError, match=message) as told:
        serve([*arguments, *(["--port", "0"] if "--port" not in arguments else [])])
    assert "\n" not in str(told.value)


def test_a_variable_that_holds_no_token_is_refused(monkeypatch):
    monkeypatch.setenv(TOKEN_VARIABLE, "t\u00fcr")
    with pytest.raises(UserError, match="SEPNET_TOKEN holds something else"):
        serve(["."])


def test_the_command_tells_that_it_has_no_model_and_what_to_name_instead(saved_models):
    """A user may start it by mistake with the folder of one model."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sepnet.serve", str(saved_models / "unet_1d"), "--port", "0"],
        cwd=REPOSITORY,
        # JAX, where a test has imported it, lets TensorFlow greet.
        env={name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        line = process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        rest = process.communicate(timeout=60)[1]
    assert line.endswith(f"unet_1d is itself a model, so no model is served; name its parent instead: {saved_models}\n")
    assert process.returncode == 0 and rest == ""


def test_it_listens_to_this_machine_alone_unless_told_otherwise(monkeypatch, tmp_path):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    served = []
    monkeypatch.setattr(command_module, "supervise", lambda options: served.append(options) or 0)
    assert serve([str(tmp_path)]) == 0
    assert serve([str(tmp_path), "--host", "0.0.0.0", "--max-song-mb", "1"]) == 0
    assert served[0] == ServeOptions(saved_models=tmp_path) and served[0].host == "127.0.0.1"
    assert (served[1].host, served[1].max_song_bytes) == ("0.0.0.0", 1 << 20)
