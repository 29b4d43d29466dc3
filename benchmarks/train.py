"""`python -m benchmarks.train`: how fast models train and separate, beside the rate of the machine's own products.

First the families as they are by default, with XLA, with `mixed_bfloat16`, with both, and with AdamW and no averages
instead of Muon; with `--open-unmix` its four networks; what the time of a training step goes to; `unet_2d` with more
filters than by default. Then depths 3 to 12, which `--defaults` leaves out. With KERAS_BACKEND=jax, JAX trains them.

The machine's own rate is that of a single-precision matrix product of 2048 x 2048 x 2048, measured in the same run.
"""

import argparse
import dataclasses
import json
import pathlib
import tempfile

import numpy as np

from benchmarks import peers
from benchmarks.report import SHORT_WINDOW, write_json
from benchmarks.timing import median_seconds
from pipelines.errors import CommandParser, run_command
from pipelines.progress import progress_bar
from pipelines.tables import print_table
from sepnet.config.config import Config
from sepnet.models import FAMILIES, family_class
from sepnet.models.keras_settings import load_keras, precision

SAMPLE_RATE = 44_100
MATRIX_SIZE, REPEATS = 2048, 3
# A backward pass computes two products for every one of the forward pass.
TRAINING_PASSES = 3
# Options of training and their headings.
WAYS = {
    "plain": {},
    "xla": {"xla": True},
    "bfloat16": {"precision": "mixed_bfloat16"},
    "xla_bfloat16": {"xla": True, "precision": "mixed_bfloat16"},
    "adamw": {"optimizer": "adamw", "ema": 0.0},
}
HEADINGS = {
    "plain": "{}",
    "xla": "{} with XLA",
    "bfloat16": "{} in bfloat16",
    "xla_bfloat16": "{} with both",
    "adamw": "{} with AdamW",
}
# Parts of the names of TensorFlow's operations; what has none of them is arithmetic.
KINDS = {
    "convolutions": ("Conv",),
    "Fourier transforms": ("FFT",),
    "products of matrices": ("MatMul",),
    "moving": ("Transpose", "Slice", "Concat", "Split", "Pad", "Pack", "Tile", "Gather", "Select", "Reshape"),
    "arithmetic": ("",),
}
PROFILED_STEPS = 1
# Filters of the first level of `unet_2d`: those of the default, and more.
FILTERS = (16, 24, 32, 48)
RESULTS = pathlib.Path("benchmarks/results")


@dataclasses.dataclass(frozen=True)
class Case:
    """A measurement: options of a family, a batch and a segment that the depth fits, and which of `WAYS`."""

    family: str
    depth: int
    batch_size: int
    segment_samples: int
    options: dict
    ways: tuple[str, ...] = ("plain", "xla")


def cases() -> list[Case]:
    """Both families at depths 3, 6, 9 and 12.

    A 2-D U-Net of 9 levels needs 512 frames, so its segments are longer. One of 12 needs pictures of 4096 x 4096, from
    windows of 8192 samples that move by 8; with one filter more at each level it fits 24 GB. At that size XLA of
    TensorFlow 2.17 ends the process ("double free or corruption").
    """
    add = {"filter_growth": "add", **SHORT_WINDOW}
    large_pictures = {"base_filters": 1, "frame_length": 8192, "frame_step": 8}
    return [
        *(Case("unet_1d", depth, 8, 32_768, {}) for depth in (3, 6, 9, 12)),
        *(Case("unet_2d", depth, 8, 32_768, add) for depth in (3, 6)),
        Case("unet_2d", 9, 2, 131_072, add),
        Case("unet_2d", 12, 1, 32_768, add | large_pictures, ways=("plain",)),
    ]


def as_by_default(family: str, options: dict, ways: tuple[str, ...]) -> Case:
    """A family as `sepnet.train` trains it, but for some options."""
    config = Config()
    segment_samples = config.data.segment_samples(SAMPLE_RATE)
    return Case(family, family_class(family)().depth, config.training.batch_size, segment_samples, options, ways)


def defaults() -> list[Case]:
    """Every family as `sepnet.train` trains it."""
    import keras

    # JAX compiles with XLA in any case.
    ways = ("plain", "bfloat16") if keras.config.backend() == "jax" else tuple(WAYS)
    return [as_by_default(name, {}, ways) for name in FAMILIES]


def main(argv=None) -> None:
    """Runs the benchmark."""
    arguments = _parser().parse_args(argv)
    load_keras()
    import keras

    rates = {name: matrix_rate(name) for name in ("float32", "bfloat16")}
    families = measure_all(defaults(), rates["float32"])
    ways = families[0]["ways"]
    for name in ("training", "forward"):
        rows = [(figure["family"], *(shown(figure, way, name, seconds=True) for way in ways)) for figure in families]
        title = f"{name}: seconds for a second of stereo at 44.1 kHz, as by default (share of the product's rate)"
        print_table(("", *(HEADINGS[way].format(name) for way in ways)), rows, title=title)
    wider = measure_wider(rates["float32"])
    profiles = {}
    if keras.config.backend() == "tensorflow":
        profiles = {case.family: profile(case) for case in defaults()}
        rows = [(kind, *(f"{shares[kind]:.0%}" for shares in profiles.values())) for kind in KINDS]
        print_table(("", *profiles), rows, title="training, as by default: shares of the operations' time")
    peer = {}
    if arguments.open_unmix:
        peers.OPEN_UNMIX.run("speed", SAMPLE_RATE)
        peer = json.loads((peers.OPEN_UNMIX.folder / "speed.json").read_text())
        print(f"open-unmix: training {peer['training']:.4f}, forward {peer['forward']:.4f}")
    depths = [] if arguments.defaults else measure_all(cases(), rates["float32"])
    if depths:
        columns = [(name, way) for name in ("training", "forward") for way in ("plain", "xla")]
        rows = [
            (f"{figure['family']} {figure['depth']}", *(shown(figure, way, name) for name, way in columns))
            for figure in depths
        ]
        headings = ("", *(HEADINGS[way].format(name) for name, way in columns))
        print_table(headings, rows, title="seconds of audio per second (share of the product's rate)")
    for name, rate in rates.items():
        print(f"a {MATRIX_SIZE}³ product of this machine in {name}: {rate / 1e9:.0f} GFLOP/s")
    gflops = {name: rate / 1e9 for name, rate in rates.items()}
    write_json(
        RESULTS / f"train-{keras.config.backend()}.json",
        {
            "matrix_gflops": gflops,
            "defaults": families,
            "wider": wider,
            "profiles": profiles,
            "open_unmix": peer,
            "cases": depths,
        },
    )


def measure_all(measured: list[Case], own_rate: float) -> list[dict]:
    """Times some cases, one after the other."""
    figures = []
    with progress_bar("measuring", total=len(measured), unit="models") as advance:
        for case in measured:
            figures.append(measure(case, own_rate))
            advance(1)
    return figures


def measure_wider(own_rate: float) -> list[dict]:
    """Times `unet_2d` with `FILTERS`, and prints the table."""
    cases = [as_by_default("unet_2d", {"base_filters": filters}, ("plain",)) for filters in FILTERS]
    figures = measure_all(cases, own_rate)
    names = ("training", "forward")
    rows = [
        (str(figure["options"]["base_filters"]), *(shown(figure, "plain", name, seconds=True) for name in names))
        for figure in figures
    ]
    print_table(("--base-filters", *names), rows, title="unet_2d with so many filters, likewise")
    return figures


def shown(figure: dict, way: str, name: str, seconds: bool = False) -> str:
    """A cell of the table; empty where a case was not measured in that way."""
    if way not in figure["ways"]:
        return ""
    rate, share = (figure[way][f"{name}_{key}"] for key in ("rate", "share"))
    return f"{1 / rate:.4f} ({share:.0%})" if seconds else f"{rate:.3g} ({share:.0%})"


def matrix_rate(dtype: str) -> float:
    """FLOP/s of a matrix product; a multiply-add is two."""
    import tensorflow as tf

    matrix = tf.cast(tf.random.normal((MATRIX_SIZE, MATRIX_SIZE)), dtype)
    product = tf.function(lambda: tf.reduce_sum(matrix @ matrix))
    return 2 * MATRIX_SIZE**3 / median_seconds(lambda: product().numpy(), REPEATS)


def measure(case: Case, own_rate: float) -> dict:
    """Times a training step and a forward pass of one case, in each of its ways."""
    from sepnet.planning.costs import flops

    figure = dataclasses.asdict(case)
    for way in case.ways:
        network, trainer, batch = prepare(case, way)
        network.model.compile(jit_compile=trainer.jit_compile)
        mixture = (batch["stems"].sum(axis=1) / 2**15).astype(np.float32)
        audio_seconds = case.batch_size * case.segment_samples / SAMPLE_RATE
        operations = case.batch_size * flops(network, case.segment_samples)
        seconds = {
            "training": median_seconds(lambda trainer=trainer, batch=batch: trainer.train_on_batch(batch), REPEATS),
            "forward": median_seconds(
                lambda model=network.model, mixture=mixture: model.predict_on_batch(mixture), REPEATS
            ),
        }
        passes = {"training": TRAINING_PASSES, "forward": 1}
        figure[way] = {f"{name}_rate": audio_seconds / seconds[name] for name in seconds} | {
            f"{name}_share": passes[name] * operations / seconds[name] / own_rate for name in seconds
        }
    return figure


def profile(case: Case) -> dict[str, float]:
    """Shares of the time of the operations of a training step, by `KINDS`, as TensorFlow's profiler sees them.

    Those of the two cores are added up.
    """
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    _, trainer, batch = prepare(case, "plain")
    trainer.train_on_batch(batch)
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            for _ in range(PROFILED_STEPS):
                trainer.train_on_batch(batch)
        (record,) = pathlib.Path(folder).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(record.read_bytes())
    times = dict.fromkeys(KINDS, 0)
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                # "place:Operation" are operations; the others are those that start them.
                place, _, operation = plane.event_metadata[event.metadata_id].name.rpartition(":")
                if place and ":" not in place and operation.lstrip("_").isalnum():
                    kind = next(kind for kind, parts in KINDS.items() if any(part in operation for part in parts))
                    times[kind] += event.duration_ps
    return {kind: time / sum(times.values()) for kind, time in times.items()}


def prepare(case: Case, way: str):
    """Builds the network of a case, its trainer, and a batch of noise."""
    import keras

    from sepnet.config.data import Data
    from sepnet.config.training import Training
    from sepnet.training.fit import make_trainer

    keras.utils.clear_session()
    shape = (case.batch_size, len(Data().stems), case.segment_samples, Data().num_channels)
    batch = {"stems": np.random.default_rng(0).integers(-9999, 9999, shape).astype(np.int16)}
    model = family_class(case.family)().changed({"depth": case.depth, **case.options})
    config = Config(model=model, training=Training(batch_size=case.batch_size, **WAYS[way]))
    with precision(config.training.precision):
        network = config.build(SAMPLE_RATE)
        return network, make_trainer(config, network), batch


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="python -m benchmarks.train", description=__doc__.partition(": ")[2])
    parser.add_argument("--defaults", action="store_true", help="the families as by default alone")
    parser.add_argument("--open-unmix", action="store_true", help="time Open-Unmix as well; installs it on first use")
    return parser


if __name__ == "__main__":
    run_command(main)
