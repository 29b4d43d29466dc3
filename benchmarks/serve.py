"""`python -m benchmarks.serve`: the server under 1, 8 and 32 clients at once, with and without batching.

An untrained 1-D U-Net of six levels, stereo at 44.1 kHz; every client sends clips of ten seconds, one after the other,
and takes all stems. Beside it stands the model alone, called in a process of its own without any server.
"""

import argparse
import base64
import concurrent.futures
import http.client
import io
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from urllib.parse import urlsplit

import numpy as np
import psutil
import soundfile

from benchmarks.report import write_json
from benchmarks.separate import SAMPLE_RATE, Case, export_in_process
from pipelines.errors import run_command
from pipelines.progress import progress_bar
from pipelines.tables import print_table

CASE = Case("unet_1d", 6, 0)
NAME = "bench"
MODEL = "model"
CLIP_SECONDS = 10
# Clips that all clients send together, at each number of clients.
CLIPS = {1: 8, 8: 24, 32: 32}
WARM_UPS = 2
REPEATS = 9
START_SECONDS = 120
RESULT = pathlib.Path("benchmarks/results/serve.json")


def main(argv=None) -> None:
    """Runs the benchmark; with `--alone FOLDER`, the process that calls the model without a server."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve", description=__doc__.partition(": ")[2])
    parser.add_argument("--alone", type=pathlib.Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.alone:
        answer_alone(arguments.alone)
        return
    with tempfile.TemporaryDirectory() as folder:
        saved_models = pathlib.Path(folder)
        export_in_process(CASE, saved_models / NAME)
        figures = measure(saved_models)
    _print(figures)
    write_json(RESULT, figures)


def measure(saved_models: pathlib.Path) -> dict:
    """Measures the model alone, each way to ask for one client, and several clients with batching on and off."""
    bodies, loads = request_bodies(), []
    with progress_bar("measuring", total=2 * sum(CLIPS.values()), unit="clips") as advance:
        for max_batch in (8, 1):
            with Server(saved_models, max_batch) as server:
                server.ask(*bodies["tensor"])
                if max_batch > 1:
                    with Alone(saved_models / NAME) as alone:
                        ways = median_times(server, alone, bodies)
                for num_clients, num_clips in CLIPS.items():
                    loads.append({"max_batch": max_batch, **load(server, num_clients, num_clips, bodies["tensor"])})
                    advance(num_clips)
    return {"ways": ways, "loads": loads}


def clip() -> np.ndarray:
    """Ten seconds of noise."""
    return np.random.default_rng(0).uniform(-0.5, 0.5, (CLIP_SECONDS * SAMPLE_RATE, 2)).astype(np.float32)


def request_bodies() -> dict[str, tuple[str, bytes]]:
    """Path and body of each way to ask for the stems of the clip."""
    from sepnet.export.tensor_proto import write_tensor

    file = io.BytesIO()
    soundfile.write(file, clip(), SAMPLE_RATE, "PCM_16", format="WAV")
    predict = f"/v1/models/{NAME}:predict"

    def signature(name: str, data: bytes) -> tuple[str, bytes]:
        instances = [{"b64": base64.b64encode(data).decode()}]
        return predict, json.dumps({"signature_name": name, "instances": instances}).encode()

    return {
        "tensor": signature("tensor", write_tensor(clip())),
        "wav": signature("wav", file.getvalue()),
        "separate": ("/separate", file.getvalue()),
        "serving_default": (predict, json.dumps({"instances": [clip().round(6).tolist()]}).encode()),
    }


def answer_alone(model: pathlib.Path) -> None:
    """Calls the model once for each line of the standard input, and writes what it took."""
    from sepnet.export.saved_model import SavedModel

    saved_model, mixture = SavedModel(model), clip()[None]
    for _ in sys.stdin:
        begin = time.perf_counter(), time.process_time()
        saved_model(mixture)
        print(json.dumps([time.perf_counter() - begin[0], time.process_time() - begin[1]]), flush=True)


class Alone:
    """The model in a process of its own, without a server, until the block ends."""

    def __init__(self, model: pathlib.Path):
        command = [sys.executable, "-m", "benchmarks.serve", "--alone", str(model)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> "Alone":
        return self

    def __exit__(self, *_) -> None:
        self._process.communicate()

    def ask(self) -> tuple[float, float]:
        """Calls it once; returns seconds on the clock and of all cores' work."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return tuple(json.loads(self._process.stdout.readline()))


class Server:
    """`python -m sepnet.serve` until the block ends, and the most memory that it has held."""

    def __init__(self, saved_models: pathlib.Path, max_batch: int):
        command = [
            sys.executable,
            "-m",
            "sepnet.serve",
            str(saved_models),
            "--port",
            "0",
            "--max-batch",
            str(max_batch),
        ]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._address = urlsplit(self._process.stdout.readline().strip()).netloc
        self._is_over = threading.Event()
        self.peak_bytes = 0

    def __enter__(self) -> "Server":
        until = time.monotonic() + START_SECONDS
        while self.ask("/readyz")[0] != 200 and time.monotonic() < until:
            time.sleep(0.2)
        # Looked for once: to go through all processes again and again would take the cores from the model.
        self._children = psutil.Process(self._process.pid).children(recursive=True)
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._is_over.set()
        self._process.terminate()
        self._process.wait()
        self._process.stdout.close()

    def ask(self, path: str, body: bytes | None = None) -> tuple[int, dict[str, str], float]:
        """Asks once; returns status, headers and the seconds from the first byte sent to the last received."""
        connection = http.client.HTTPConnection(self._address, timeout=600)
        begin = time.perf_counter()
        connection.request("POST" if body else "GET", path, body)
        answer = connection.getresponse()
        answer.read()
        seconds = time.perf_counter() - begin
        connection.close()
        return answer.status, dict(answer.headers), seconds

    def cpu_seconds(self) -> float:
        """Seconds of work of the serving process until now, on all cores."""
        return sum(sum(child.cpu_times()[:2]) for child in self._children)

    def _watch(self) -> None:
        while not self._is_over.wait(0.05):
            self.peak_bytes = max(self.peak_bytes, sum(child.memory_info().rss for child in self._children))


def median_times(server: Server, alone: Alone, bodies: dict[str, tuple[str, bytes]]) -> dict[str, dict[str, float]]:
    """Median seconds of an answer for one client: on the clock, its own work included, and of the server's work alone.

    The model without a server and the ways to ask take turns: no machine is equally fast all of the time.
    """

    def ask(path: str, body: bytes) -> tuple[float, float]:
        begin = server.cpu_seconds()
        status, _, seconds = server.ask(path, body)
        if status != 200:
            raise RuntimeError(f"{path} answered {status}")
        return seconds, server.cpu_seconds() - begin

    rounds = [
        {MODEL: alone.ask()} | {way: ask(*body) for way, body in bodies.items()} for _ in range(WARM_UPS + REPEATS)
    ]
    return {way: _medians([times[way] for times in rounds[WARM_UPS:]]) for way in rounds[0]}


def _medians(times: list[tuple[float, float]]) -> dict[str, float]:
    seconds, cpu_seconds = map(statistics.median, zip(*times, strict=True))
    return {"seconds": seconds, "cpu_seconds": cpu_seconds}


def load(server: Server, num_clients: int, num_clips: int, request: tuple[str, bytes]) -> dict:
    """Lets so many clients ask at once, and counts; a client that gets 503 comes again when it is told to."""
    refusals, failures, times = [], [], []

    def ask(_) -> None:
        while True:
            status, headers, seconds = server.ask(*request)
            if status != 503 or "Retry-After" not in headers:
                (times if status == 200 else failures).append(seconds)
                return
            refusals.append(seconds)
            time.sleep(float(headers["Retry-After"]))

    begin = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(num_clients) as threads:
        list(threads.map(ask, range(num_clips)))
    seconds = time.perf_counter() - begin
    return {
        "num_clients": num_clients,
        "num_clips": num_clips,
        "audio_seconds_per_second": num_clips * CLIP_SECONDS / seconds,
        "median_seconds": statistics.median(times),
        "slowest_seconds": max(times),
        "refusals": len(refusals),
        "failures": len(failures),
        "peak_bytes": server.peak_bytes,
    }


def _print(figures: dict) -> None:
    alone = figures["ways"][MODEL]
    rows = [
        (
            way,
            f"{1000 * times['seconds']:.0f} ms",
            f"{times['seconds'] / alone['seconds'] - 1:+.1%}",
            f"{1000 * times['cpu_seconds']:.0f} ms",
            f"{times['cpu_seconds'] / alone['cpu_seconds'] - 1:+.1%}",
        )
        for way, times in figures["ways"].items()
    ]
    headings = ("", "time", "", "work of all cores", "")
    print_table(headings, rows, title=f"one client, {CLIP_SECONDS} s of stereo, beside the model alone")
    rows = [
        (
            f"{load['num_clients']}, {'on' if load['max_batch'] > 1 else 'off'}",
            f"{load['audio_seconds_per_second']:.1f}",
            f"{load['median_seconds']:.2f} s",
            f"{load['slowest_seconds']:.2f} s",
            f"{load['refusals']} / {load['failures']}",
            f"{load['peak_bytes'] / 1e6:,.0f} MB",
        )
        for load in figures["loads"]
    ]
    headings = ("clients, batching", "s of audio per s", "median", "slowest", "503 / failed", "peak memory")
    print_table(headings, rows, title="several clients at once")


if __name__ == "__main__":
    run_command(main)
