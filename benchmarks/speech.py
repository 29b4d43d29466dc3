"""`python -m benchmarks.speech MODEL... --data DATA`: speech out of noise, beside the noisy input and other programs.

SI-SDR, PESQ and STOI of the test songs as `sepnet.evaluate` measures them, as means over songs with 95% intervals from
resampled songs. With `--peers`, noisereduce and RNNoise stand beside them: these run in an environment of their own.
"""

import argparse
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks import peers
from benchmarks.report import write_json
from pipelines.errors import CommandParser, UserError, run_command, user_path
from pipelines.progress import progress_bar
from pipelines.songs.layouts import Track
from pipelines.tables import make_console, print_table
from sepnet.combination.weights import CONFIDENCE
from sepnet.config.data import Data
from sepnet.config.flags import add_flags_of, section_from_flags
from sepnet.config.songs import config_tracks, data_of, data_root, read_song
from sepnet.evaluation.aggregates import mean_of_known
from sepnet.evaluation.speech import DIGITS, METRICS, SPEECH, speech_scores, speech_sources
from sepnet.export.saved_model import read_models

NOISY = "noisy input"
RESULT = peers.RESULTS / "speech.json"
HEADINGS = {"si_sdr": "SI-SDR, dB", **METRICS}
SHOWN_DIGITS = {"si_sdr": 1, **DIGITS}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    arguments = _parser().parse_args(argv)
    models, parts, others, num_channels = read_models(arguments.models)
    speech_sources(arguments.source, parts, quick=False)
    data, parts = data_of(parts, others, num_channels, section_from_flags(Data, arguments))
    tracks = config_tracks(data)["test"]
    if len(tracks) < 2:
        raise UserError(f"{data_root(data)} has {len(tracks)} songs in its test split; give 2 or more")

    from sepnet.separation.separator import Separator

    separators = {name: Separator(version) for name, version in models.items()}
    beside = _run_peers(tracks, data.parts) if arguments.peers else []
    songs: dict[str, dict[str, dict[str, float | None]]] = {}
    with progress_bar("measuring", total=len(tracks), unit="songs") as advance:
        for index, track in enumerate(tracks):
            mixture, sources = read_song(track, data.parts)
            estimates = {NOISY: mixture}
            for name, separator in separators.items():
                estimates[name] = separator(mixture, track.sample_rate)[arguments.source]
            for name in beside:
                estimates[name] = np.load(peers.DENOISERS.folder / name / f"{index}.npy")
            for name, estimate in estimates.items():
                figures = _figures(sources[arguments.source], estimate, track.sample_rate)
                songs.setdefault(name, {})[track.name] = figures
            advance(1, track.name)
    metrics = list(figures)
    means = {name: {metric: _mean(of_songs, metric) for metric in metrics} for name, of_songs in songs.items()}
    rows = [
        (name, *(_shown(mean, SHOWN_DIGITS[metric]) for metric, mean in row.items())) for name, row in means.items()
    ]
    headings = ("", *(HEADINGS[metric] for metric in metrics))
    title = f"{arguments.source} of {len(tracks)} test songs: means over songs (95%)"
    print_table(headings, rows, title=title, boxed=False, console=make_console(100))
    for name, row in means.items():
        for metric, mean in row.items():
            if missing := len(tracks) - mean["num_songs"]:
                print(f"left out of {HEADINGS[metric]} of {name}: {missing} songs")
    write_json(RESULT, {"means": means, "songs": songs})


def _figures(speech: np.ndarray, estimate: np.ndarray, sample_rate: int) -> dict[str, float | None]:
    """The figures of a song: None where it has none."""
    from sepnet.measures.metrics import is_heard, si_sdr_db

    true, estimated = (audio[None, :, None] for audio in (speech, estimate))
    ratio = float(si_sdr_db(true, estimated)[0, 0]) if is_heard(true)[0, 0] else None
    scores = speech_scores(speech, estimate, sample_rate)
    return {"si_sdr": ratio, **{metric: mean_of_known(values) for metric, values in scores.items()}}


def _mean(songs: Mapping[str, Mapping[str, float | None]], metric: str) -> dict[str, Any]:
    """The mean of the songs that have a figure, and its interval where there are two of them."""
    from scipy.stats import bootstrap

    values = [song[metric] for song in songs.values() if song[metric] is not None]
    mean = {"mean": mean_of_known(values), "num_songs": len(values)}
    if len(values) < 2:
        return mean
    interval = bootstrap(
        (values,), np.mean, confidence_level=CONFIDENCE, method="percentile", random_state=0
    ).confidence_interval
    return {**mean, "low": float(interval.low), "high": float(interval.high)}


def _shown(mean: Mapping[str, Any], digits: int) -> str:
    if "low" not in mean:
        return "–" if mean["mean"] is None else f"{mean['mean']:.{digits}f}"
    return f"{mean['mean']:.{digits}f} ({mean['low']:.{digits}f} … {mean['high']:.{digits}f})"


def _run_peers(tracks: Sequence[Track], parts: Mapping[str, Sequence[str]]) -> list[str]:
    """Lets the other programs work on the mixtures; returns the names of their methods, which are folders."""
    folder = peers.DENOISERS.folder
    for old in folder.glob("*/*.npy"):
        shutil.rmtree(old.parent, ignore_errors=True)
    (folder / "mixtures").mkdir(parents=True)
    for index, track in enumerate(tracks):
        np.save(folder / "mixtures" / f"{index}.npy", read_song(track, parts)[0])
    peers.DENOISERS.run(tracks[0].sample_rate)
    return sorted({path.parent.name for path in folder.glob("*/0.npy")} - {"mixtures"})


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="python -m benchmarks.speech", description=__doc__.partition(": ")[2])
    parser.add_argument("models", type=user_path, nargs="+", metavar="MODEL", help="saved_models/NAME")
    parser.add_argument("--source", default=SPEECH, metavar="NAME", help="the source that is speech [speech]")
    parser.add_argument("--peers", action="store_true", help="noisereduce and RNNoise, too; installs them on first use")
    add_flags_of(parser, Data, ("data", "sources", "sample_rate", "skip_bad"))
    return parser


if __name__ == "__main__":
    run_command(main)
