"""`python -m sepnet.evaluate MODEL...`: how far models are from the true stems of whole songs, and from no model."""

import argparse
import json
import pathlib
from collections.abc import Mapping, Sequence

from pipelines.errors import CommandParser, UserError, run_command

BASELINES = ("silence", "mixture/num_sources")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command.

    Raises:
        UserError: a model or the data cannot be used, or the models have different sources.
    """
    arguments = _parser().parse_args(argv)
    from pipelines.tracks import load_tracks
    from sepnet.config import Config, Data
    from sepnet.separator import Separator
    from sepnet.tracks import data_root

    short = len({path.name for path in arguments.models}) == len(arguments.models)
    separators = {path.name if short else str(path): Separator(path) for path in arguments.models}
    parts = [Config.from_values(separator.contract["config"]).data.parts for separator in separators.values()]
    if any(other != parts[0] for other in parts):
        listed = " and ".join(", ".join(names) for names in parts)
        raise UserError(f"the models have different sources ({listed}); evaluate them apart")
    stems = [stem for names in parts[0].values() for stem in names]
    root = data_root(Data(data=arguments.data))
    tracks = load_tracks(root, sources=stems)[arguments.split]
    if not tracks:
        raise UserError(f"{root} has no song in its {arguments.split} split; choose another with --split")
    figures = evaluate(separators, tracks, parts[0])
    print_figures(figures, f"{len(tracks)} {arguments.split} songs of {root}, whole")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2))


def evaluate(separators: Mapping[str, "Separator"], tracks, parts: Mapping[str, Sequence[str]]) -> dict:  # noqa: F821
    """Measures models, silence and an equal share of the mixture on whole songs.

    Args:
        separators: `sepnet.separator.Separator` by name, all with the sources of `parts`.
        tracks: songs that hold every stem.
        parts: the stems whose sum each source is.

    Returns:
        By the name of the model or baseline: `mse` and `mse_<source>`, mean squared errors on the waveform over
        sources, songs, channels and samples, and `si_sdr`, in dB, the mean over songs and sources that are not silent.
    """
    import numpy as np

    from pipelines.audio import read_blocks
    from pipelines.progress import progress_bar
    from pipelines.songs import MIXTURE
    from sepnet.metrics import is_heard, si_sdr_db, squared_errors

    names = [*separators, *BASELINES]
    errors, ratios, lengths = {name: [] for name in names}, {name: [] for name in names}, []
    seconds = sum(track.num_samples / track.sample_rate for track in tracks)
    with progress_bar("evaluating", total=seconds, unit="s of audio") as advance:
        for track in tracks:
            stems = {stem: np.concatenate(list(read_blocks(path))) for stem, path in track.files.items()}
            sources = np.stack([sum(stems[stem] for stem in group) for group in parts.values()], axis=1)
            mixture = stems.get(MIXTURE, sources.sum(axis=1))
            heard = np.asarray(is_heard(sources[None]))[0]
            estimates = {"silence": np.zeros_like(sources)}
            estimates["mixture/num_sources"] = np.repeat(mixture[:, None] / len(parts), len(parts), axis=1)
            for name, separator in separators.items():
                separated = separator(mixture, track.sample_rate)
                estimates[name] = np.stack([separated[source] for source in parts], axis=1)
            for name in names:
                errors[name].append(np.asarray(squared_errors(sources[None], estimates[name][None]))[0])
                ratios[name].extend(np.asarray(si_sdr_db(sources[None], estimates[name][None]))[0][heard])
            lengths.append(track.num_samples)
            advance(track.num_samples / track.sample_rate, track.name)

    figures = {}
    for name in names:
        by_source = np.average(errors[name], axis=0, weights=lengths)
        figures[name] = {"mse": float(by_source.mean())}
        figures[name] |= {f"mse_{source}": float(error) for source, error in zip(parts, by_source, strict=True)}
        figures[name]["si_sdr"] = float(np.mean(ratios[name]))
    return figures


def print_figures(figures: Mapping[str, Mapping[str, float]], title: str) -> None:
    """Prints what `evaluate` gives as a table."""
    from rich.console import Console
    from rich.table import Table

    columns = list(next(iter(figures.values())))
    table = Table(title=f"mean squared error: {title}")
    table.add_column("", overflow="fold")
    for column in columns:
        heading = {"mse": "all", "si_sdr": "SI-SDR, dB"}.get(column, column.removeprefix("mse_"))
        table.add_column(heading, justify="right")
    for name, row in figures.items():
        shown = (f"{value:.1f}" if column == "si_sdr" else f"{value:.5f}" for column, value in row.items())
        table.add_row(name, *shown)
    Console().print(table)


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="python -m sepnet.evaluate", description=__doc__.partition(": ")[2], allow_abbrev=False)
    parser.add_argument("models", type=pathlib.Path, nargs="+", metavar="MODEL", help="saved_models/NAME")
    parser.add_argument("--data", help="folder of songs (default: the demo songs)")
    parser.add_argument("--split", choices=("train", "valid", "test"), default="test", help="which songs [test]")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the figures there, too")
    return parser


if __name__ == "__main__":
    run_command(main)
