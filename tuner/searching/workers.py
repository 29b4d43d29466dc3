"""Several workers on one search, by KerasTuner's chief and its variables.

KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT say where the chief is, KERASTUNER_TUNER_ID who a process is; the chief
has "chief" in its name. All of them see the same folder: workers show there that they are alive, and the chief gives
the trial of one that is not to another.
"""

import contextlib
import os
import pathlib
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures

from pipelines.errors import UserError

FOLDER = "workers"
# Names the process without which another has nothing to do: the search of a run, or the chief of a local worker.
PARENT = "SEPNET_PARENT"
SECONDS_BETWEEN_SIGNS = 2.0
# KerasTuner's, of which none is of use without the others.
VARIABLES = ("KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT", "KERASTUNER_TUNER_ID")
MOST_STARTS = 5
# How processes end: for a mistake of the user (see `pipelines.errors.run_command`); a run that found the disk full, a
# quota used up, or a file larger than is allowed.
USER_ERROR_STATUS, NO_SPACE_STATUS = 2, 28
# What marks the line in which they say why.
ERROR = "error: "


def check_environment() -> None:
    """Checks the variables that this module reads.

    Raises:
        UserError: one of KerasTuner's is missing, its port is none, or `SEPNET_WORKER_SECONDS` is no time.
    """
    missing = [name for name in VARIABLES if name not in os.environ]
    if 0 < len(missing) < len(VARIABLES):
        raise UserError(f"{missing[0]} is not set; set all of {', '.join(VARIABLES)}, or none")
    if not missing and not re.fullmatch("[0-9]{1,5}", port := os.environ["KERASTUNER_ORACLE_PORT"]):
        raise UserError(f"KERASTUNER_ORACLE_PORT is {port!r}, which is no port; give that of the chief")
    seconds_without_sign()


def seconds_without_sign() -> float:
    """The time after which a worker that gives no sign is taken for dead.

    Raises:
        UserError: `SEPNET_WORKER_SECONDS`, which changes it, is no time.
    """
    text = os.environ.get("SEPNET_WORKER_SECONDS", "30")
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        raise UserError(f"SEPNET_WORKER_SECONDS is {text!r}; give seconds, such as 30")
    return float(text)


def is_chief() -> bool:
    """True in the process that was started as the chief of several workers."""
    return "chief" in os.environ.get("KERASTUNER_TUNER_ID", "")


def is_worker() -> bool:
    """True in a process that was started as a worker."""
    return "KERASTUNER_ORACLE_IP" in os.environ and not is_chief()


def end_with_parent() -> None:
    """Ends this process soon after the one that `PARENT` names, if it does, however that ended."""
    if PARENT not in os.environ:
        return
    # (`getppid` at this moment may already be somebody else.)
    parent = int(os.environ[PARENT])

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def signs_of_life(search: pathlib.Path) -> Iterator[None]:
    """While the block runs, shows the chief that this worker is alive."""
    # Without its chief a worker would wait for an hour.
    end_with_parent()
    path = search / FOLDER / os.environ["KERASTUNER_TUNER_ID"]
    path.parent.mkdir(parents=True, exist_ok=True)
    ended = threading.Event()

    def show() -> None:
        while not ended.is_set():
            path.touch()
            ended.wait(SECONDS_BETWEEN_SIGNS)

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def serve(oracle, search: pathlib.Path, report: Callable[[str], None], local: "LocalWorkers | None" = None) -> None:
    """Answers workers until there is no more work; gives the trials of those that died to others.

    (KerasTuner's own loop waits for ever for a worker that died.)

    Args:
        oracle: of `tuner.searching.oracles`.
        search: folder of the search.
        report: is called with a line for people.
        local: workers of this machine, which are started again when they die.
    """
    import grpc
    from keras_tuner.src import protos
    from keras_tuner.src.distribute.oracle_chief import OracleServicer

    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
    servicer = OracleServicer(oracle)
    protos.get_service_grpc().add_OracleServicer_to_server(servicer, server)
    server.add_insecure_port(f"{os.environ['KERASTUNER_ORACLE_IP']}:{os.environ['KERASTUNER_ORACLE_PORT']}")
    server.start()
    signs: dict[str, tuple[float, float]] = {}
    try:
        while not (servicer.stop_triggered and not oracle.ongoing_trials and not oracle.tuner_ids):
            time.sleep(0.5)
            for worker in _without_sign(oracle, search, signs):
                trial_id = oracle.give_back(worker)
                report(f"{worker} is gone" + (f": trial {trial_id} goes to another worker" if trial_id else ""))
            if local is not None:
                local.restart_dead()
    finally:
        # The last worker may still be waiting for its answer.
        server.stop(grace=2).wait()


def _without_sign(oracle, search: pathlib.Path, signs: dict[str, tuple[float, float]]) -> list[str]:
    """The workers whose file has not been touched for too long, by this machine's clock."""
    now, gone = time.monotonic(), []
    for worker in {*oracle.tuner_ids, *oracle.ongoing_trials}:
        path = search / FOLDER / worker
        touched = path.stat().st_mtime if path.exists() else 0.0
        if signs.get(worker, (None,))[0] != touched:
            signs[worker] = touched, now
        elif now - signs[worker][1] > seconds_without_sign():
            gone.append(worker)
            del signs[worker]
    return gone


class LocalWorkers:
    """Workers on this machine, each a process that runs the same command.

    Args:
        arguments: of the command.
        number: how many.
        search: folder of the search.
    """

    def __init__(self, arguments: Sequence[str], number: int, search: pathlib.Path):
        self.arguments = list(arguments)
        self.search = search
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = {
                "KERASTUNER_ORACLE_IP": "127.0.0.1",
                "KERASTUNER_ORACLE_PORT": str(free.getsockname()[1]),
            }
        os.environ.update(self.address, KERASTUNER_TUNER_ID="chief")
        (search / FOLDER).mkdir(parents=True, exist_ok=True)
        self.starts = [0] * number
        self.processes = [self._start(index) for index in range(number)]

    def restart_dead(self) -> None:
        """Starts workers again that died.

        Raises:
            UserError: one dies again and again, or has found something that the user must mend.
        """
        for index, process in enumerate(self.processes):
            if process.poll() in (None, 0):
                continue
            if process.returncode == USER_ERROR_STATUS:
                raise UserError(f"worker {index}: {last_error(self._log(index))}")
            if self.starts[index] >= MOST_STARTS:
                raise UserError(
                    f"worker {index} died {MOST_STARTS} times; its last words are in {self._log(index)}: mend it, "
                    "and type the command again"
                )
            self.processes[index] = self._start(index)

    def end(self) -> None:
        """Waits for workers that have heard that there is no more work; ends the others."""
        for process in self.processes:
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.terminate()
                process.wait()

    def _start(self, index: int) -> subprocess.Popen:
        self.starts[index] += 1
        # A name of its own at every start: what the one before had in hand is given back.
        name = f"worker{index}-{os.getpid()}-{self.starts[index]}"
        environment = {
            **os.environ,
            **self.address,
            "KERASTUNER_TUNER_ID": name,
            PARENT: str(os.getpid()),
            **_own_gpu(index),
            # Several share a GPU if none takes all of its memory at once.
            "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        }
        with self._log(index).open("a") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tuner.search", *self.arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _log(self, index: int) -> pathlib.Path:
        return self.search / FOLDER / f"worker{index}.log"


def last_error(log: pathlib.Path) -> str:
    """The last error that a process has left in its log, or else its last line; "" if there is none."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(ERROR)]
    return (errors or lines or [""])[-1].removeprefix(ERROR)


def _own_gpu(index: int) -> dict[str, str]:
    """Environment that gives each worker one of the GPUs that this process sees, if they are several."""
    import tensorflow as tf

    number = len(tf.config.list_physical_devices("GPU"))
    if number < 2:
        return {}
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(number)))).split(",")
    return {"CUDA_VISIBLE_DEVICES": seen[index % number]}
