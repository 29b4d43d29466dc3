"""Spleeter's own speed and memory when it separates: prints JSON. `spleeter_reference.py` tells how to get it.

    ENVIRONMENT/bin/python benchmarks/originals/spleeter_speed.py WEIGHTS SECONDS

WEIGHTS is a folder with a checkpoint of four stems; SECONDS is the length of the noise that is separated, from WAV to
WAVs.
"""

import json
import pathlib
import resource
import sys
import tempfile
import time

import numpy as np
import soundfile
from spleeter.separator import Separator
from spleeter.utils.configuration import load_configuration

SAMPLE_RATE = 44_100


def main() -> None:
    """Separates twice, and times the second time: the first builds the graph."""
    weights, num_seconds = pathlib.Path(sys.argv[1]).resolve(), int(sys.argv[2])
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        settings = load_configuration("spleeter:4stems") | {"model_dir": str(weights)}
        (folder / "settings.json").write_text(json.dumps(settings))
        separator = Separator(str(folder / "settings.json"), multiprocess=False)
        noise = np.random.default_rng(0).normal(0, 0.1, (num_seconds * SAMPLE_RATE, 2))
        soundfile.write(folder / "song.wav", noise, SAMPLE_RATE, "PCM_16")
        separator.separate(np.zeros((SAMPLE_RATE, 2), np.float32))
        begin = time.perf_counter()
        mixture, _ = soundfile.read(folder / "song.wav", dtype="float32")
        for source, stem in separator.separate(mixture).items():
            soundfile.write(folder / f"{source}.wav", stem, SAMPLE_RATE, "PCM_16")
        seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "audio_seconds": num_seconds, "peak_bytes": peak}))


if __name__ == "__main__":
    main()
