"""Errors of every validation segment with the best weights of a run, and the costs of separating."""

import itertools
import pathlib
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from sepnet.config.config import Config
from sepnet.config.run_folder import Run
from sepnet.measures.energy import EnergyMeter
from sepnet.measures.metrics import squared_errors
from sepnet.models.keras_settings import compiled, precision
from sepnet.training.trainer import Trainer

# What is estimated from the load counts the processor's ticks, a hundred in a second.
SHORTEST_SECONDS = 0.5


def measure_run(run: Run, config: Config, validation: tf.data.Dataset, sample_rate: int) -> dict[str, Any]:
    """Separates every validation segment with the best weights of a run.

    Args:
        run: one that `sepnet.training.fit` has finished.
        config: its config.
        validation: the segments, see `sepnet.training.fit.make_validation`.
        sample_rate: of the songs, Hz.

    Returns:
        `segment_mse`, the mean squared errors `[num_segments][num_sources]`, and for each second of separated audio
        `separation_seconds` and `separation_joules`.
    """
    parts = config.data.parts
    with precision(config.training.precision):
        network = config.build(sample_rate)
        trainer = Trainer(network, list(parts), num_parts=[len(stems) for stems in parts.values()])
    run.load_weights(network.model)
    trainer.compile(jit_compile=compiled(config.training.xla))
    batches = iter(validation)
    first = next(batches)
    # What is traced and compiled is no cost of separating.
    trainer.predict_on_batch(first)
    errors, num_samples = [], 0
    with EnergyMeter() as meter:
        begin, before = time.monotonic(), meter.joules
        for batch in itertools.chain([first], batches):
            outputs = trainer.predict_on_batch(batch)
            errors.append(np.asarray(squared_errors(outputs["sources"], outputs["estimates"])))
            num_samples += outputs["sources"].shape[0] * outputs["sources"].shape[1]
        while time.monotonic() - begin < SHORTEST_SECONDS:
            trainer.predict_on_batch(first)
            num_samples += first["stems"].shape[0] * first["stems"].shape[2]
        seconds, joules = time.monotonic() - begin, meter.joules - before
    audio_seconds = num_samples / sample_rate
    return {
        "segment_mse": np.concatenate(errors).tolist(),
        "separation_seconds": seconds / audio_seconds,
        "separation_joules": joules / audio_seconds,
    }


def peak_bytes() -> int:
    """The most memory that this process has held: on its first GPU where there is one, else in all."""
    if keras.backend.backend() == "tensorflow" and tf.config.list_physical_devices("GPU"):
        return tf.config.experimental.get_memory_info("GPU:0")["peak"]
    status = pathlib.Path("/proc/self/status")
    if status.exists():
        # `resource.getrusage` would begin at the memory of the process that started this one.
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return 1024 * int(lines["VmHWM"].split()[0])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
