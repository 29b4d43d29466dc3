"""`python -m sepnet.train`: trains a U-Net of any depth and exports it as a SavedModel."""

import argparse
import contextlib
import dataclasses
import itertools
import math
import pathlib
from collections.abc import Iterator, Sequence

from pipelines.errors import CommandParser, folder_name, run_command, user_path
from pipelines.files import check_writable, new_folder, sole_lock
from pipelines.tables import print_table
from sepnet.config.config import Config
from sepnet.config.flags import add_flags, add_saved_models, config_from_flags, refuse_config_flags
from sepnet.config.run_folder import Run
from sepnet.config.songs import data_root
from sepnet.models.keras_settings import load_keras


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command.

    Raises:
        UserError: the options do not go together, or the data cannot be used.
    """
    arguments = _parser().parse_args(argv)
    if arguments.resume is not None:
        refuse_config_flags(arguments, "--resume takes its options from the run")
        run = Run(arguments.resume)
        name = arguments.name or run.folder.resolve().name
        train(run.config, run, arguments.saved_models / name, resume=True)
    else:
        config = _findable(config_from_flags(arguments))
        name = arguments.name or f"{config.family}_depth{config.model.depth}"
        with free_run(arguments.runs, name) as run:
            train(config, run, arguments.saved_models / name)


def _findable(config: Config) -> Config:
    """The config with the folder of songs by its whole path, for `--resume` from another folder."""
    if config.data.data is None or not data_root(config.data).is_dir():
        return config
    path = str(data_root(config.data).resolve())
    return dataclasses.replace(config, data=dataclasses.replace(config.data, data=path))


def train(config: Config, run: Run, saved_model: pathlib.Path, *, resume: bool = False) -> pathlib.Path:
    """Trains one model and prints what it came to.

    Args:
        config: checked config.
        run: the run, with its folder.
        saved_model: `saved_models/<name>`; a model that is there gets a new version.
        resume: goes on from the run's last checkpoint.

    Returns:
        Folder of the exported version.

    Raises:
        UserError: another process trains the run, or it cannot be trained.
    """
    with sole_lock(run.folder):
        return _train(config, run, saved_model, resume)


def _train(config: Config, run: Run, saved_model: pathlib.Path, resume: bool) -> pathlib.Path:
    from sepnet.config.songs import config_tracks, data_root

    for folder in (run.folder, saved_model):
        check_writable(folder)
    root, tracks = data_root(config.data), config_tracks(config.data)
    counts = ", ".join(f"{len(songs)} {split}" for split, songs in tracks.items())
    are_songs = not any(track.is_recording for track in tracks["train"])
    what = "songs" if are_songs else "recordings, and mixtures of those held out,"
    print(f"{run}: {what} from {root} ({counts})", flush=True)

    # TensorFlow takes seconds to load: songs that cannot be used are refused before.
    load_keras()
    from sepnet.export.write import export_run
    from sepnet.training.fit import fit

    result = fit(config, tracks, run=run, resume=resume)
    version = export_run(run, saved_model)
    print_result(result, list(config.data.parts))
    print(f"run:         {run}")
    print(f"SavedModel:  {version}")
    return version


def print_result(result, sources: Sequence[str]) -> None:
    """Prints `val_mse` of the model beside the baselines, for each source.

    Args:
        result: of `sepnet.training.fit.fit`.
        sources: names of the sources.
    """
    rows = [
        (name, *(f"{figures[key]:.5f}" for key in ("val_mse", *(f"val_mse_{source}" for source in sources))))
        for name, figures in {f"model (epoch {result.metrics['epoch']})": result.metrics, **result.baselines}.items()
    ]
    print_table(("", "all", *sources), rows, title="val_mse on the fixed validation segments")
    for name, figures in result.baselines.items():
        print(comparison_text(name, figures["val_mse"], result.metrics["val_mse"]))
    print(f"SI-SDR of the model: {result.metrics['val_si_sdr']:.1f} dB")


def comparison_text(name: str, baseline: float, model: float) -> str:
    """Says how the errors of a baseline and a model compare, both mean squares."""
    if not baseline:
        return f"Nothing can be said against {name}, which makes no error: the validation songs are silent."
    if not model:
        return f"The model makes no error, unlike {name}."
    gain_db = 10 * math.log10(baseline / model)
    return f"The model is {abs(gain_db):.1f} dB {'below' if gain_db >= 0 else 'ABOVE'} {name}."


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="python -m sepnet.train", description=__doc__.partition(": ")[2], allow_abbrev=False)
    parser.add_argument("--name", type=folder_name, help="of the run and the model (default: family and depth)")
    parser.add_argument("--runs", type=user_path, default=pathlib.Path("runs"), help="folder of new runs [runs]")
    add_saved_models(parser)
    parser.add_argument("--resume", type=user_path, metavar="RUN", help="go on with runs/NAME, whatever ended it")
    add_flags(parser)
    return parser


@contextlib.contextmanager
def free_run(runs: pathlib.Path, name: str) -> Iterator[Run]:
    """Begins a run `runs/name`, or where that is taken, of the name with the first free number behind it.

    Where the run writes nothing, its folder is gone afterwards.
    """
    with new_folder(runs, itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))) as folder:
        yield Run(folder)


if __name__ == "__main__":
    run_command(main)
