"""The command as users start it: two processes, one of which may be killed; and what it says when it cannot start."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading

import psutil
import pytest
import requests

from sepnet.serving.options import ServeOptions
from sepnet.serving.supervisor import SHORTEST_LIFE_SECONDS
from tests.conftest import REPOSITORY
from tests.sepnet.helpers import noise
from tests.sepnet.serving.conftest import eventually
from tests.sepnet.serving.test_separate_route import encoded

GOOD = {"instances": [[[0.25, -0.25]] * 100]}


@pytest.fixture(scope="module")
def command(saved_models):
    """`python -m sepnet.serve`, and its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sepnet.serve", str(saved_models), "--port", "0"],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    url = process.stdout.readline().strip()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url), process.stderr.read()
    yield process, url
    process.kill()
    process.wait()
    process.stdout.close()
    process.stderr.close()


def serving_process(process):
    """The child that serves; Python's own helper of `spawn` is another."""
    children = psutil.Process(process.pid).children()
    return next((child for child in children if "spawn_main" in " ".join(child.cmdline())), None)


def predict(url):
    return requests.post(f"{url}/v1/models/unet_1d:predict", json=GOOD, timeout=60)


def test_a_killed_process_is_replaced_and_connections_wait_for_it(command):
    process, url = command
    # Asked while it starts: the port is there already.
    assert predict(url).status_code == 200
    killed = serving_process(process)
    assert killed.create_time() + SHORTEST_LIFE_SECONDS > 0
    os.kill(killed.pid, signal.SIGKILL)
    assert predict(url).status_code == 200
    assert serving_process(process).pid != killed.pid


def test_sigterm_lets_running_requests_finish(command):
    process, url = command
    song = encoded(noise(12 * 60 * 8000, 2), 8000)
    answers = []

    def separate():
        with requests.post(f"{url}/separate?model=unet_2d&stem=drums", data=song, stream=True, timeout=60) as answer:
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
    assert "Traceback" not in process.stderr.read()


def test_what_hinders_the_start_is_said_in_one_line(run, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments, message in (
            ([tmp_path, "--port", port], f"cannot listen on 127.0.0.1 port {port}: Address already in use"),
            ([tmp_path / "nowhere"], "no such folder: .*nowhere"),
            ([tmp_path, "--port", "x"], "'x' is no port"),
            ([tmp_path, "--label", "demo=1"], "'demo=1' is no label; expected NAME/LABEL=VERSION"),
            ([tmp_path, "--max-batch", "0"], "'0' is no whole number above 0"),
        ):
            outcome = run("sepnet.serve", *arguments)
            assert outcome.status == 2 and outcome.stdout == ""
            assert re.fullmatch(f"error: .*{message}.*\n", outcome.stderr), outcome.stderr


def test_it_listens_to_this_machine_alone_unless_told_otherwise():
    assert ServeOptions().host == "127.0.0.1"
