"""The chain's memory depends on the batch, not on the songs."""

import subprocess
import sys

import numpy as np
import pytest
import soundfile

SOURCES = ("vocals", "drums")
SAMPLE_RATE = 8_000
# What allocators keep differs from run to run; the data of the larger folders is many times this.
TOLERANCE_MB = 40
PROGRAM = """
import pathlib, resource, sys
def peak():
    status = pathlib.Path("/proc/self/status")
    if status.exists():
        # `getrusage` begins at the memory of the process that started this one, here the tests'.
        return int(dict(line.split(":", 1) for line in status.read_text().splitlines())["VmHWM"].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
from pipelines.batches.dataset import training_batches
from pipelines.copies.tracks import load_tracks
tracks = load_tracks(pathlib.Path(sys.argv[1]), stems=("vocals", "drums"))["train"]
options = dict(stems=("vocals", "drums"), segment_samples=8_000, num_channels=2, batch_size=16, seed=0)
batches = iter(training_batches(tracks, reader=sys.argv[2], **options))
for _ in range(300):
    next(batches)
print(peak())
"""


def make_songs(root, count, seconds):
    noise = np.random.default_rng(0).integers(-9_999, 9_999, (round(seconds * SAMPLE_RATE), 2)).astype(np.int16)
    for number in range(count):
        folder = root / "train" / f"song {number}"
        folder.mkdir(parents=True)
        for source in SOURCES:
            soundfile.write(folder / f"{source}.wav", noise, SAMPLE_RATE, "PCM_16")
    return root


def peak_mb(root, reader):
    command = [sys.executable, "-c", PROGRAM, str(root), reader]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, timeout=200).stdout)


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["auto", "portable"])
def test_memory_does_not_grow_with_the_songs(tmp_path, reader):
    few = peak_mb(make_songs(tmp_path / "few", 10, 5), reader)
    many = peak_mb(make_songs(tmp_path / "many", 200, 5), reader)
    long = peak_mb(make_songs(tmp_path / "long", 10, 300), reader)
    assert many - few < TOLERANCE_MB
    assert long - few < TOLERANCE_MB
