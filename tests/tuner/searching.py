"""Searches of tiny models as a user starts them, and what they leave."""

import json
import os
import pathlib
import subprocess
import sys
import time

from tests.conftest import REPOSITORY
from tuner.searching.records import read_search

TINY = [
    "--families",
    "unet_1d",
    "--base-filters",
    "2",
    "--budget",
    "1epochs",
    "--steps-per-epoch",
    "4",
    "--batch-size",
    "1",
    "--segment-seconds",
    "0.1",
    "--validation-segments",
    "2",
    "--validation-seconds",
    "0.1",
    "--no-audio",
]
SECONDS_TO_WAIT = 240


def tiny_search(songs, searches, depths, name="tiny"):
    """The arguments of a search of models that take seconds."""
    return [*TINY, "--data", str(songs), "--searches", str(searches), "--name", name, "--depths", depths]


def start(flags, **environment):
    """Starts a search in a session of its own."""
    command = [sys.executable, "-m", "tuner.search", *flags]
    return subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def wait_for(condition):
    end = time.monotonic() + SECONDS_TO_WAIT
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def status_of(trial_file: pathlib.Path) -> str:
    return json.loads(trial_file.read_text())["status"] if trial_file.exists() else ""


def trials_of(folder):
    """Depth and status of every trial, in order."""
    return [(trial.depth, trial.status) for trial in read_search(folder).trials]
