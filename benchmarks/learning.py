"""`python -m benchmarks.learning`: how fast the families learn, over minutes and joules, and Open-Unmix beside them.

Every family is trained with its defaults by `sepnet.train`, for the same minutes on the same songs, with several seeds;
`val_mse` is measured on the same segments, and museval's SDR on the test songs. `--try` trains the default family with
other options besides. Open-Unmix is another program: it runs in an environment of its own, which `--open-unmix` makes,
on the same songs and segments.
"""

import argparse
import functools
import json
import pathlib
import shlex
import shutil
import statistics
import sys

import numpy as np

from benchmarks import peers
from benchmarks.children import run_child
from benchmarks.report import write_json
from pipelines.errors import CommandParser, run_command
from pipelines.tables import print_table

OPEN_UNMIX = "open-unmix"
RESULTS = pathlib.Path("benchmarks/results")
FOLDER = RESULTS / "learning"


def main(argv=None) -> None:
    """Runs the benchmark."""
    arguments = _parser().parse_args(argv)
    from sepnet.config.config import Config
    from sepnet.config.data import Data
    from sepnet.config.songs import config_tracks
    from sepnet.training.fit import make_validation, measure_baselines

    config = Config(data=Data(data=arguments.data))
    tracks = config_tracks(config.data)
    validation = make_validation(config, tracks["valid"])
    baselines = {name: figures["val_mse"] for name, figures in measure_baselines(config, validation).items()}
    trainings = {family: functools.partial(_train, f"--family {family}", family) for family in arguments.families}
    trainings |= {
        flags: functools.partial(_train, flags, f"try{number}") for number, flags in enumerate(arguments.tries)
    }
    if arguments.open_unmix:
        trainings[OPEN_UNMIX] = functools.partial(_train_open_unmix, config, tracks, validation)
    settings = {"minutes": arguments.minutes, "seeds": arguments.seeds, "data": arguments.data}
    runs: dict[str, list[dict]] = {name: [] for name in trainings}
    for seed in arguments.seeds:
        for name, train in trainings.items():
            runs[name].append(train(seed, arguments, tracks["test"]))
            # After every run, because all of them take hours.
            write_json(RESULTS / "learning.json", {**settings, "runs": runs, "baselines": baselines})
    rows = [
        (name, *(_spread(values, key, scale) for key, scale in (("val_mse", 1e3), ("sdr", 1.0), ("joules", 1e-3))))
        for name, values in runs.items()
    ]
    print_table(
        ("", "val_mse ·10⁻³", "SDR dB", "kJ"),
        rows,
        title=f"after {arguments.minutes:g} minutes, {len(arguments.seeds)} seeds: mean ± deviation",
    )
    for name, value in baselines.items():
        print(f"{name}: val_mse {value:.5f}")
    _draw(RESULTS / "learning.png", runs, baselines)
    print(f"picture: {RESULTS / 'learning.png'}")


def _train(flags: str, name: str, seed: int, arguments: argparse.Namespace, songs) -> dict:
    """A run with some flags: its curve, and the SDR of its model."""
    from sepnet.config.run_folder import Run
    from sepnet.separation.separator import Separator

    name = f"{name}-{seed}"
    models = FOLDER / "models"
    command = [sys.executable, "-m", "sepnet.train", *shlex.split(flags)]
    command += ["--seed", seed, "--minutes", arguments.minutes]
    command += ["--name", name, "--runs", FOLDER / "runs", "--saved-models", models]
    command += ["--data", arguments.data] if arguments.data else []
    for old in (FOLDER / "runs" / name, models / name):
        shutil.rmtree(old, ignore_errors=True)
    run_child(command)
    run = Run(FOLDER / "runs" / name)
    curve = [
        (seconds / 60, joules, mse) for (seconds, joules), mse in zip(run.spent, run.history["val_mse"], strict=True)
    ]
    return _figures(curve, songs, Separator(models / name))


def _train_open_unmix(config, tracks, validation, seed: int, arguments: argparse.Namespace, songs) -> dict:
    """The same of Open-Unmix, whose program reads songs and segments from a file and writes stems."""
    from sepnet.config.songs import read_song

    peers.OPEN_UNMIX.folder.mkdir(parents=True, exist_ok=True)
    parts = config.data.parts
    arrays = {}
    for split in ("train", "test"):
        for index, track in enumerate(tracks[split]):
            mixture, sources = read_song(track, parts)
            arrays[f"{split}_{index}"] = np.stack([mixture, *sources.values()]).astype(np.float32)
    batches = list(validation.as_numpy_iterator())
    arrays |= {f"valid_{name}": np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    np.savez(peers.OPEN_UNMIX.folder / "songs.npz", **arrays)
    peers.OPEN_UNMIX.run("learn", tracks["train"][0].sample_rate, seed, arguments.minutes)
    curve = json.loads((peers.OPEN_UNMIX.folder / "curve.json").read_text())
    estimates = iter(np.load(peers.OPEN_UNMIX.folder / "estimates.npz").values())
    return _figures(curve, songs, lambda mixture, sample_rate: dict(zip(parts, next(estimates), strict=True)))


def _figures(curve, songs, separate) -> dict:
    from sepnet.config.data import Data
    from sepnet.config.songs import read_song
    from sepnet.evaluation.aggregates import HEADLINE, aggregate
    from sepnet.evaluation.bss_eval import frame_scores

    frames: dict[str, list[np.ndarray]] = {}
    for track in songs:
        mixture, sources = read_song(track, Data().parts)
        scores, _ = frame_scores(sources, separate(mixture, track.sample_rate), track.sample_rate)
        for source, metrics in scores.items():
            frames.setdefault(source, []).append(np.array(metrics["SDR"]))
    by_source = {source: aggregate(values)[HEADLINE] for source, values in frames.items()}
    return {
        "curve": curve,
        "val_mse": min(mse for _, _, mse in curve),
        "joules": curve[-1][1],
        "sdr": statistics.mean(by_source.values()),
        "sdr_by_source": by_source,
    }


def _spread(runs: list[dict], key: str, scale: float) -> str:
    values = [run[key] * scale for run in runs if run[key] is not None]
    if not values:
        return ""
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"


def _draw(path: pathlib.Path, runs: dict[str, list[dict]], baselines: dict[str, float]) -> None:
    """Draws `val_mse` over minutes and over joules: a thin line for each seed."""
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(10, 4.5), layout="constrained")
    for axes, column, label in zip(figure.subplots(1, 2, sharey=True), (0, 1), ("minutes", "kJ"), strict=True):
        for index, (name, values) in enumerate(runs.items()):
            for number, run in enumerate(values):
                points = [(row[column], row[2]) for row in run["curve"] if row[column] is not None]
                if points:
                    places, errors = np.array(points, float).T
                    places = places / 1000 if column else places
                    axes.plot(places, errors, color=f"C{index}", lw=1.2, label=name if number == 0 else None)
        for name, value in baselines.items():
            axes.axhline(value, color="0.5", lw=0.8, ls="--")
            axes.annotate(name, (0.99, value), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8)
        axes.set(xlabel=label, yscale="log")
        axes.grid(alpha=0.3, which="both")
    figure.axes[0].set_ylabel("val_mse")
    figure.axes[0].legend(fontsize=9)
    figure.savefig(path, dpi=120)


def _parser() -> argparse.ArgumentParser:
    from sepnet.models import FAMILIES

    parser = CommandParser(prog="python -m benchmarks.learning", description=__doc__.partition(": ")[2])
    parser.add_argument("--data", help="folder of songs (default: the demo songs)")
    parser.add_argument("--minutes", type=float, default=4.0, help="of each run [4]")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="[0 1 2]")
    parser.add_argument("--families", nargs="*", choices=FAMILIES, default=list(FAMILIES), help="[all]")
    parser.add_argument(
        "--try",
        dest="tries",
        action="append",
        default=[],
        metavar="FLAGS",
        help='the default family with other options, such as "--loss mse --depth 6"; may be repeated',
    )
    parser.add_argument("--open-unmix", action="store_true", help="train Open-Unmix as well; installs it on first use")
    return parser


if __name__ == "__main__":
    run_command(main)
