"""`python -m benchmarks.search`: what a search takes beyond the training of its models and the start of processes."""

import importlib.util
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from benchmarks.children import run_child
from benchmarks.report import write_json
from pipelines.errors import CommandParser, run_command
from pipelines.tables import print_table

SEARCH = ("--depths", "2-3", "--segment-seconds", "0.5", "--validation-seconds", "2")
# What a run loads, some of it only when it comes to it; newer Pythons have no tensorflow-io.
LIBRARIES = [name for name in ("codecarbon", "tensorflow_io") if importlib.util.find_spec(name)]
MODULES = ["tuner.trial", "sepnet.planning.costs", "sepnet.training.fit", "sepnet.training.measure", *LIBRARIES]
IMPORTS = f"import {', '.join(MODULES)}"
REPEATS = 3
RESULT = pathlib.Path("benchmarks/results/search.json")


def main(argv=None) -> None:
    """Runs the benchmark, on the demo songs."""
    CommandParser(prog="python -m benchmarks.search", description=__doc__.partition(": ")[2]).parse_args(argv)
    from tuner.searching.records import read_search

    start = statistics.median(_seconds([sys.executable, "-c", IMPORTS]) for _ in range(REPEATS))
    folder = pathlib.Path(tempfile.mkdtemp())
    try:
        command = [sys.executable, "-m", "tuner.search", "--searches", str(folder), "--name", "bench", *SEARCH]
        wall_seconds = _seconds(command)
        runs = [run.record for trial in read_search(folder / "bench").trials for run in trial.runs]
    finally:
        shutil.rmtree(folder)
    training = sum(run["costs"]["training_seconds"] for run in runs)
    # Its own, and one for each run.
    num_starts = len(runs) + 1
    seconds = {
        "training": training,
        "rest_of_runs": sum(run["seconds"] for run in runs) - training,
        "starts": num_starts * start,
    }
    seconds |= {"all_else": wall_seconds - sum(seconds.values()), "search": wall_seconds}
    names = (
        f"training of {len(runs)} models",
        "the rest of their runs: songs, graphs, costs",
        f"{num_starts} starts of a process, {start:.1f} s each",
        "all else: KerasTuner, plans, the report",
        "the search",
    )
    rows = [
        (name, f"{value:.1f} s", f"{value / training:.1%}") for name, value in zip(names, seconds.values(), strict=True)
    ]
    print_table(("", "time", "of the training"), rows, title="what a search takes")
    beyond_share = (seconds["rest_of_runs"] + seconds["all_else"]) / training
    print(f"beyond the training and the starts of processes: {beyond_share:.1%}")
    write_json(
        RESULT, {"arguments": SEARCH, "num_starts": num_starts, "seconds": seconds, "beyond_share": beyond_share}
    )


def _seconds(command: list[str]) -> float:
    begin = time.monotonic()
    run_child(command, stdout=subprocess.DEVNULL)
    return time.monotonic() - begin


if __name__ == "__main__":
    run_command(main)
