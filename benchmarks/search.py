"""`python -m benchmarks.search`: what a search takes beyond its own runs, and beyond the start of their processes."""

import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from benchmarks.report import print_table, write_json
from pipelines.errors import run_command

SEARCH = ("--depths", "1-3", "--seeds", "2", "--no-audio", "--steps-per-epoch", "40", "--validation-segments", "16")
BUDGET = ("--budget", "2epochs", "--segment-seconds", "0.5", "--batch-size", "4", "--validation-seconds", "2")
# What a run loads before its clock begins.
IMPORTS = "import sepnet.costs, sepnet.fit, sepnet.measure"
REPEATS = 3
RESULT = pathlib.Path("benchmarks/results/search.json")


def main(argv=None) -> None:
    """Runs the benchmark, on the demo songs."""
    from tuner.records import read_search

    start_seconds = statistics.median(_seconds([sys.executable, "-c", IMPORTS]) for _ in range(REPEATS))
    folder = pathlib.Path(tempfile.mkdtemp())
    try:
        command = [sys.executable, "-m", "tuner.search", "--searches", str(folder), "--name", "bench", *SEARCH, *BUDGET]
        wall_seconds = _seconds(command)
        runs = [run.record for trial in read_search(folder / "bench").trials for run in trial.runs]
    finally:
        shutil.rmtree(folder)
    own_seconds = sum(run["seconds"] for run in runs)
    beyond = wall_seconds - own_seconds - len(runs) * start_seconds
    figures = {
        "runs": len(runs),
        "search_seconds": wall_seconds,
        "own_seconds": own_seconds,
        "start_seconds": start_seconds,
        "beyond_seconds": beyond,
        "beyond_share": beyond / own_seconds,
    }
    rows = [
        ("the search", f"{wall_seconds:.0f} s", ""),
        (f"its {len(runs)} runs: training, validating, measuring", f"{own_seconds:.0f} s", "100%"),
        (f"{len(runs)} starts of a process", f"{len(runs) * start_seconds:.0f} s", ""),
        ("all else: its own start, KerasTuner, plans, report", f"{beyond:.0f} s", f"{beyond / own_seconds:.1%}"),
    ]
    print_table("what a search takes", ("", "time", "of its runs"), rows)
    write_json(RESULT, figures)


def _seconds(command: list[str]) -> float:
    begin = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - begin


if __name__ == "__main__":
    run_command(main)
