"""`python -m sepnet.train`: trains a U-Net of any depth and exports it as a SavedModel."""

import argparse
import itertools
import pathlib
from collections.abc import Sequence

from pipelines.errors import CommandParser, run_command
from sepnet.config import Config, add_flags, config_from_flags


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command.

    Raises:
        UserError: the options do not go together, or the data cannot be used.
    """
    arguments = _parser().parse_args(argv)
    config = config_from_flags(arguments)
    train(config, arguments.name, arguments.runs, arguments.saved_models)


def train(config: Config, name: str | None, runs: pathlib.Path, saved_models: pathlib.Path):
    """Trains one model and prints what it came to.

    Args:
        config: checked config.
        name: of the run and of the model; None makes one from family and depth.
        runs: folder of runs; a run whose name is taken gets a number behind it.
        saved_models: folder of models; a model whose name is taken gets a new version.

    Returns:
        `sepnet.fit.Result`.
    """
    from pipelines.files import check_writable
    from pipelines.songs import data_folder
    from pipelines.synthesis import demo_songs_path
    from pipelines.tracks import load_tracks

    name = name or f"{config.family}_depth{config.model.depth}"
    for folder in (runs, saved_models / name):
        check_writable(folder)
    root = data_folder(pathlib.Path(config.data.data)) if config.data.data else demo_songs_path()
    tracks = load_tracks(
        root, sources=config.data.sources, sample_rate=config.data.sample_rate, skip_bad=config.data.skip_bad
    )
    counts = ", ".join(f"{len(songs)} {split}" for split, songs in tracks.items())
    print(f"{name}: songs from {root} ({counts})")

    # TensorFlow takes seconds to load: only after everything that can be refused without it.
    from sepnet.fit import fit

    result = fit(config, tracks, run=_free_folder(runs, name), saved_model=saved_models / name)
    print_result(result, config.data.sources)
    return result


def print_result(result, sources: Sequence[str]) -> None:
    """Prints `val_mse` of the model beside the baselines, for each source, and where everything lies."""
    import math

    from rich.console import Console
    from rich.table import Table

    table = Table(title="val_mse on the fixed validation segments")
    table.add_column("")
    for heading in ("all", *sources):
        table.add_column(heading, justify="right")
    rows = {f"model (epoch {result.metrics['epoch']})": result.metrics, **result.baselines}
    for name, figures in rows.items():
        values = [figures["val_mse"], *(figures[f"val_mse_{source}"] for source in sources)]
        table.add_row(name, *(f"{value:.5f}" for value in values))
    console = Console()
    console.print(table)
    for name, figures in result.baselines.items():
        gain_db = 10 * math.log10(figures["val_mse"] / result.metrics["val_mse"])
        print(f"The model is {gain_db:.1f} dB {'below' if gain_db >= 0 else 'ABOVE (!)'} {name}.")
    print(f"SI-SDR of the model: {result.metrics['val_si_sdr']:.1f} dB")
    print(f"run:         {result.run}")
    print(f"SavedModel:  {result.saved_model}")


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="python -m sepnet.train", description=__doc__.partition(": ")[2], allow_abbrev=False)
    parser.add_argument("--name", help="of the run and the model (default: family and depth)")
    parser.add_argument("--runs", type=pathlib.Path, default=pathlib.Path("runs"), help="folder of runs [runs]")
    parser.add_argument(
        "--saved-models", type=pathlib.Path, default=pathlib.Path("saved_models"), help="folder of models [saved_models]"
    )
    add_flags(parser)
    return parser


def _free_folder(runs: pathlib.Path, name: str) -> pathlib.Path:
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(runs / name for name in names if not (runs / name).exists())


if __name__ == "__main__":
    run_command(main)
