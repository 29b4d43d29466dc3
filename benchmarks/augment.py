"""`python -m benchmarks.augment MODEL`: how fast stem sets are made, in what memory, and beside `sepnet.separate`.

The songs are noise. Each row is `sepnet.augment` as a user runs it, or `sepnet.separate` to FLAC of the same
songs. Ray's own processes count in the peak, which is the most that all of them take together.
"""

import argparse
import contextlib
import functools
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
import psutil

from benchmarks.report import write_json
from benchmarks.separate import write_noise
from benchmarks.timing import median_seconds
from pipelines.errors import run_command, user_path
from pipelines.progress import progress_bar
from pipelines.tables import print_table

RESULT = pathlib.Path("benchmarks/results/augment.json")
FEW, MANY = 20, 400
# Of the songs whose speed is measured, and of those whose number is.
LONG_SECONDS, SHORT_SECONDS = 60, 10
# Stems alone: what `sepnet.separate` writes.
STEMS = 'clip_seconds = 10\n[[clip]]\nkind = "stem"\ncaption = "{caption}, {source} only"\n'
# Blocks of several songs that a model is given at once.
BATCHES, BATCH_RUNS = (1, 2, 4, 8), 5
# To add up a process's memory takes a part of a core's time.
WATCH_SECONDS = 1.0


def main(argv=None) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.augment", description=__doc__.partition(": ")[2])
    parser.add_argument("model", type=user_path, help="folder of a SavedModel")
    parser.add_argument("--few", type=int, default=FEW, help=f"songs of the other runs [{FEW}]")
    parser.add_argument("--many", type=int, default=MANY, help=f"songs of the long run [{MANY}]")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "stems.toml").write_text(STEMS)
        alone = folder / "stems.toml"
        cases = [
            ("sepnet.separate", arguments.few, LONG_SECONDS, 1, None),
            ("sepnet.augment, stems alone", arguments.few, LONG_SECONDS, 1, alone),
            ("sepnet.augment, stems alone", arguments.few, LONG_SECONDS, 2, alone),
            ("sepnet.augment", arguments.few, LONG_SECONDS, 1, None),
            ("sepnet.augment, stems alone", arguments.few, SHORT_SECONDS, 1, alone),
            ("sepnet.augment, stems alone", arguments.many, SHORT_SECONDS, 1, alone),
        ]
        for _, count, seconds, *_ in cases:
            songs = folder / f"songs-{count}-{seconds}"
            if not songs.exists():
                songs.mkdir()
                for index in range(count):
                    write_noise(songs / f"{index:04d}.wav", seconds)
        figures = []
        with progress_bar("measuring", total=len(cases), unit="runs") as advance:
            for index, (command, count, song_seconds, workers, recipe) in enumerate(cases):
                songs, stems = folder / f"songs-{count}-{song_seconds}", folder / f"stems-{index}"
                if command == "sepnet.separate":
                    words = [command, songs, "--model", arguments.model, "--output", stems, "--format", "flac"]
                else:
                    words = ["sepnet.augment", songs, stems, "--model", arguments.model.name]
                    words += ["--saved-models", arguments.model.parent, "--workers", workers]
                    words += ["--recipe", recipe] if recipe else []
                figure = {"command": command, "songs": count, "song_seconds": song_seconds, "workers": workers}
                figure |= watch(words)
                if (stems / "summary.json").exists():
                    figure["rates"] = json.loads((stems / "summary.json").read_text())["rates"]
                figures.append(figure)
                advance(1)
    rows = [
        (
            figure["command"],
            f"{figure['songs']} × {figure['song_seconds']} s",
            str(figure["workers"]),
            f"{figure['songs'] * figure['song_seconds'] / figure['seconds']:.1f}",
            f"{figure['rates']['audio_hours_per_hour']:.1f}" if "rates" in figure else "",
            f"{figure['rates']['model_share']:.0%}" if "rates" in figure else "",
            f"{figure['peak_bytes'] / 1e9:.2f} GB",
        )
        for figure in figures
    ]
    headings = ("", "songs", "workers", "s of audio\nper s", "once it\nruns", "model\nbusy", "peak\nmemory")
    print_table(headings, rows, title=f"stem sets by {arguments.model.name}", boxed=False)
    speeds = batch_speeds(arguments.model)
    rows = [(str(size), f"{speed:.1f}") for size, speed in speeds.items()]
    print_table(("blocks\nat once", "s of audio\nper s"), rows, title="the model alone", boxed=False)
    write_json(RESULT, {"cases": figures, "batches": speeds})


def batch_speeds(path: pathlib.Path) -> dict[int, float]:
    """Seconds of audio that a model separates in a second, by how many blocks it is given at once: medians."""
    from sepnet.export.saved_model import SavedModel
    from sepnet.separation.separator import block_and_context

    model = SavedModel(path)
    contract = model.contract
    rate, most = contract["sample_rate"], contract.get("block_samples")
    block, context = block_and_context(contract["grid_samples"], contract["context_samples"], rate, None, most)
    shape, noise, speeds = (block + 2 * (context or 0), contract["num_channels"]), np.random.default_rng(0), {}
    for size in BATCHES:
        mixtures = 0.1 * noise.standard_normal((size, *shape), np.float32)
        speeds[size] = size * block / rate / median_seconds(functools.partial(model, mixtures), BATCH_RUNS)
    return speeds


def watch(words: list) -> dict[str, float]:
    """Runs a command of the project; its seconds, and the most memory that it and its children took."""
    begin, peak = time.perf_counter(), 0
    with subprocess.Popen([sys.executable, "-m", *map(str, words)], stdout=subprocess.DEVNULL) as process:
        watched = psutil.Process(process.pid)
        while process.returncode is None:
            peak = max(peak, _memory(watched))
            # It counts from its end, and not from the next look.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(WATCH_SECONDS)
    if process.returncode:
        raise SystemExit(process.returncode)
    return {"seconds": time.perf_counter() - begin, "peak_bytes": peak}


def _memory(process: psutil.Process) -> int:
    total = 0
    try:
        for each in [process, *process.children(recursive=True)]:
            # Shared pages count once, in parts.
            total += each.memory_full_info().pss
    except psutil.NoSuchProcess:
        pass
    return total


if __name__ == "__main__":
    run_command(main)
