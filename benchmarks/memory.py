"""`python -m benchmarks.memory`: what training steps take, beside what `sepnet.planning.step_memory` predicts."""

import argparse
import json
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.report import SHORT_WINDOW, write_json
from pipelines.errors import CommandParser, run_command
from pipelines.tables import print_table
from sepnet.config.config import Config
from sepnet.models import family_class
from sepnet.models.keras_settings import load_keras

SAMPLE_RATE, STEPS = 44_100, 4
RESULT = pathlib.Path("benchmarks/results/memory.json")
BASES = [
    ("unet_1d", {"depth": 3}, 8, 2.0),
    ("unet_1d", {"depth": 6}, 8, 2.0),
    ("unet_1d", {"depth": 9}, 8, 2.0),
    ("unet_1d", {"depth": 12}, 8, 2.0),
    ("unet_2d", {"depth": 3}, 4, 3.0),
    ("unet_2d", {"depth": 6}, 4, 3.0),
    ("unet_2d", {"depth": 9, "filter_growth": "add", **SHORT_WINDOW}, 4, 4.0),
]
WAYS = [({}, {}), ({"recompute": True}, {}), ({}, {"precision": "mixed_bfloat16"})]
# What else changes which tensors there are, and one of the sizes that people train with.
OTHERS = [
    ("unet_1d", {"depth": 6, "normalization": "batch", "activation": "relu"}, 4, 2.0, {}),
    ("unet_1d", {"depth": 6, "padding": "valid", "upsampling": "learned", "downsampling": "filtered"}, 4, 2.0, {}),
    ("unet_1d", {"depth": 6, "filter_growth": "double"}, 8, 2.0, {}),
    ("unet_1d", {"depth": 6, "filter_growth": "double"}, 2, 2.0, {"optimizer": "adamw"}),
    ("unet_2d", {"depth": 7}, 1, 2.0, {"accumulation": 2, "ema": 0.9}),
    ("unet_2d", {"depth": 5, "upsampling": "transposed", "downsampling": "strided"}, 3, 3.0, {}),
    ("unet_2d", {"depth": 5, "output": "direct"}, 3, 3.0, {"loss": "magnitude_l1"}),
]


def main(argv=None) -> None:
    """Runs the benchmark."""
    arguments = _parser().parse_args(argv)
    # Before TensorFlow: of the memory of processors it keeps count with oneDNN alone.
    load_keras()
    if arguments.measure:
        take = _separate_blocks if arguments.separate else _take_steps
        print(json.dumps(take(Config.from_json(arguments.measure))))
        return
    from sepnet.planning.step_memory import training_bytes

    rows = []
    for config in configs():
        figures = measure(config)
        figures["predicted_tensor_bytes"] = training_bytes(config, SAMPLE_RATE, "gpu")
        figures["predicted_process_bytes"] = training_bytes(config, SAMPLE_RATE, "cpu")
        rows.append({"config": describe(config), **figures})
        print(rows[-1], file=sys.stderr, flush=True)
    print_table(
        ("", "tensors", "measured", "ratio", "process", "measured", "ratio"),
        [(row["config"], *_compared(row, "tensor"), *_compared(row, "process")) for row in rows],
        title=f"memory of a training step in GB, predicted and measured; ratios of {len(rows)} configs",
    )
    write_json(RESULT, {"configs": rows})


def configs() -> list[Config]:
    """Both families at several depths, plain, with recomputation and in mixed precision, and some other options."""
    grid = [(*base[:1], {**base[1], **model}, *base[2:], training) for model, training in WAYS for base in BASES]
    return [make_config(*entry) for entry in [*grid, *OTHERS]]


def make_config(family: str, model: dict, batch_size: int, segment_seconds: float, training: dict) -> Config:
    """A config with the defaults of its family beside what is given."""
    base = Config(model=family_class(family)())
    return base.changed({"batch_size": batch_size, "segment_seconds": segment_seconds, **model, **training})


def measure(config: Config, *, separate: bool = False) -> dict[str, int]:
    """Takes a few training steps on noise, or separates a few blocks, in a process of its own.

    Returns:
        `tensor_bytes`, the most that TensorFlow's allocator had handed out after the first step, which counts oneDNN's
        scratch memory; and `process_bytes`, the most that the process had in memory.
    """
    command = [sys.executable, "-m", "benchmarks.memory", "--measure", config.to_json(), *["--separate"] * separate]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(finished.stdout.splitlines()[-1])


def describe(config: Config) -> str:
    """The options in which a config differs from the defaults."""
    plain = Config(model=type(config.model)())
    given: dict[str, Any] = {"depth": config.model.depth, "seconds": config.data.segment_seconds}
    pairs = ((config.model, plain.model), (config.model.body, plain.model.body), (config.training, plain.training))
    for section, default in pairs:
        for name in section.options():
            value = getattr(section, name)
            given |= {name: value} if value != getattr(default, name, None) else {}
    return " ".join([config.family, *(f"{name}={value}" for name, value in given.items())])


def _take_steps(config: Config) -> dict[str, int]:
    import numpy as np

    from sepnet.models.keras_settings import precision
    from sepnet.training.fit import make_trainer

    with precision(config.training.precision):
        network = config.build(SAMPLE_RATE)
        trainer = make_trainer(config, network)
    num_samples = network.training_samples(config.data.segment_samples(SAMPLE_RATE))
    num_seen = num_samples + 2 * network.margin_samples
    shape = (config.training.batch_size, len(config.data.stems), num_seen, config.data.num_channels)
    batch = {"stems": np.random.default_rng(0).integers(-2000, 2000, shape, np.int16)}
    return _peaks(lambda: trainer.train_on_batch(batch))


def _separate_blocks(config: Config) -> dict[str, int]:
    import tensorflow as tf

    from sepnet.planning.step_memory import block_samples

    network = config.build(SAMPLE_RATE)
    separate = tf.function(network.model)
    mixture = tf.random.uniform((1, block_samples(network, SAMPLE_RATE), config.data.num_channels), -0.5, 0.5)
    return _peaks(lambda: separate(mixture))


def _peaks(run: Callable[[], Any]) -> dict[str, int]:
    """Runs something a few times; see `measure`."""
    import tensorflow as tf

    from sepnet.training.measure import peak_bytes

    peaks = []
    for _ in range(STEPS):
        tf.config.experimental.reset_memory_stats("CPU:0")
        run()
        peaks.append(tf.config.experimental.get_memory_info("CPU:0")["peak"])
    return {"tensor_bytes": max(peaks[1:]), "process_bytes": peak_bytes()}


def _compared(row: dict[str, Any], kind: str) -> tuple[str, str, str]:
    predicted, measured = row[f"predicted_{kind}_bytes"], row[f"{kind}_bytes"]
    return f"{predicted / 1e9:.2f}", f"{measured / 1e9:.2f}", f"{predicted / measured:.2f}"


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="python -m benchmarks.memory", description=__doc__.partition(": ")[2])
    parser.add_argument("--measure", metavar="JSON", help="take the steps of one config here, and print what they take")
    parser.add_argument("--separate", action="store_true", help="with --measure: separate blocks instead of training")
    return parser


if __name__ == "__main__":
    run_command(main)
