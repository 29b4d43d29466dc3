"""The files that start a search on clusters, run here by stand-ins for what a cluster does."""

import os
import shlex
import signal
import socket
import subprocess
import sys

import pytest
import yaml

from tests.conftest import REPOSITORY
from tests.tuner.searching import SECONDS_TO_WAIT, tiny_search, trials_of
from tuner.searching.records import COMPLETED

# `srun COMMAND...` with three tasks.
SRUN = """#!/bin/bash
for number in 0 1 2; do SLURM_PROCID=$number "$@" & done
for job in $(jobs -p); do wait "$job" || exit; done
"""


@pytest.fixture
def begin():
    """Starts a process in a session of its own, which ends with the test."""
    started = []

    def begin(command, **options):
        options["env"] = {**os.environ, "PYTHONPATH": str(REPOSITORY), **options["env"]}
        started.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, **options))
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def write_program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.mark.slow
def test_the_slurm_script_searches(tmp_path, write_songs, begin):
    write_program(tmp_path / "bin" / "srun", SRUN)
    write_program(tmp_path / ".venv" / "bin" / "python", f'#!/bin/bash\nexec {shlex.quote(sys.executable)} "$@"\n')
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "SLURM_JOB_ID": str(os.getpid())}
    flags = tiny_search(write_songs(tmp_path / "my songs"), "searches", "1-2")
    script = begin(["bash", REPOSITORY / "docs" / "search.slurm", *flags], cwd=tmp_path, env=environment)
    assert script.wait(SECONDS_TO_WAIT) == 0
    folder = tmp_path / "searches" / "tiny"
    assert sorted(trials_of(folder)) == [(1, COMPLETED), (2, COMPLETED)]
    workers = sorted(path.name.partition("-")[0] for path in (folder / "workers").iterdir())
    assert workers == ["worker1", "worker2"] and (folder / "report.html").exists()


@pytest.mark.slow
def test_the_containers_of_the_kubernetes_file_search(tmp_path, write_songs, begin):
    service, chief, workers = yaml.safe_load_all((REPOSITORY / "docs" / "search-kubernetes.yaml").read_text())
    assert service["spec"]["selector"] == {"job-name": chief["metadata"]["name"]}
    assert workers["spec"]["parallelism"] == workers["spec"]["completions"]
    write_songs(tmp_path / "songs")
    # A cluster has names for addresses, and every pod the same ports.
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        free_port = str(free.getsockname()[1])
    here = {service["metadata"]["name"]: "127.0.0.1", str(service["spec"]["ports"][0]["port"]): free_port}

    def start(job, pod):
        [container] = job["spec"]["template"]["spec"]["containers"]
        [mount] = container["volumeMounts"]
        at = mount["mountPath"]
        assert (container["workingDir"], container["command"][0]) == (at, "python")
        arguments = [text.replace(at, str(tmp_path)) for text in container["command"][1:]]
        values = {one["name"]: one.get("value", pod) for one in container["env"]}
        # Of the same options, the last counts.
        small = tiny_search(tmp_path / "songs", tmp_path / "searches", "1")
        return begin(
            [sys.executable, *arguments, *small, "--seeds", "1"],
            cwd=tmp_path,
            env={name: here.get(value, value) for name, value in values.items()},
        )

    pods = [f"{workers['metadata']['name']}-{ending}" for ending in ("x7k2p", "b9q4d")]
    processes = [start(chief, f"{chief['metadata']['name']}-m3v8s"), *(start(workers, pod) for pod in pods)]
    assert [process.wait(SECONDS_TO_WAIT) for process in processes] == [0, 0, 0]
    folder = tmp_path / "searches" / "tiny"
    assert trials_of(folder) == [(1, COMPLETED)]
    assert sorted(path.name for path in (folder / "workers").iterdir()) == sorted(pods)
