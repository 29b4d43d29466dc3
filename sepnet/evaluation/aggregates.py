"""From a song's figures to one: every way in which the field does it, by its name."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sepnet.evaluation.bss_eval import METRICS

# Of whole songs, in dB.
RATIOS = ("si_sdr", "sdr")
# How the figures of whole songs become one.
WHOLE_SONGS = {
    "mse": "mean over all samples, channels and songs, then over sources",
    "si_sdr": "mean over songs and sources that are not silent",
    "sdr": "mean over songs and sources that are not silent",
    "pesq_wb": "ITU-T P.862.2, wide band at 16 kHz: mean over excerpts of each song, then over songs",
    "pesq_nb": "ITU-T P.862.1, narrow band at 8 kHz: mean over excerpts of each song, then over songs",
    "stoi": "short-time objective intelligibility: mean over excerpts of each song, then over songs",
}
AGGREGATES = {
    "median_of_medians": "median of the frames of each song, then median over songs; what the field quotes",
    "mean_of_medians": "median of the frames of each song, then mean over songs",
    "pooled_median": "median of the frames of all songs",
    "pooled_mean": "mean of the frames of all songs",
}
HEADLINE = "median_of_medians"


def aggregate(frames: Sequence[np.ndarray]) -> dict[str, float | None]:
    """Every aggregate of one metric of one source, by the names of `AGGREGATES`; None where no song has a figure.

    The figures are those of the frames of each song, NaN where there is none.
    """
    songs = [values[~np.isnan(values)] for values in frames]
    songs = [values for values in songs if len(values)]
    if not songs:
        return dict.fromkeys(AGGREGATES)
    medians, pooled = song_medians(songs), np.concatenate(songs)
    values = (np.median(medians), np.mean(medians), np.median(pooled), np.mean(pooled))
    return {name: float(value) for name, value in zip(AGGREGATES, values, strict=True)}


def song_medians(frames: Sequence[np.ndarray]) -> list[float]:
    """The median over the frames of each song that has a figure."""
    return [float(np.nanmedian(values)) for values in frames if not np.isnan(values).all()]


def mean_over_sources(figures: Mapping[str, float | None]) -> float | None:
    """The mean of the sources' figures; None where one has none."""
    values = list(figures.values())
    return None if None in values else float(np.mean(values))


def mean_of_known(values: Sequence[float | None]) -> float | None:
    """The mean of the values that are known; None where none is."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def summarise(scores: Sequence[Mapping[str, Mapping[str, Any]]], sources: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The figures of every method over all songs, from what `sepnet.evaluation.scores.score_song` gives of each.

    Returns:
        By method: `mse` and `mse_<source>`, means over all samples; `si_sdr`, `sdr` and the same by source, means over
        songs, in dB; where speech was measured, `speech`: by source, PESQ and STOI as means over songs, `excerpts`, how
        many there are, and `missing`, how many of them have no figure, by metric; and where museval has figures,
        `museval`: by aggregate and metric, for each source and as `all`, the mean over sources; and `song_medians`, the
        SDR of each song by source.
    """
    return {method: _summarise([song[method] for song in scores], sources) for method in scores[0]}


def _summarise(songs: Sequence[Mapping[str, Any]], sources: Sequence[str]) -> dict[str, Any]:
    lengths = [song["num_samples"] for song in songs]
    errors = {source: float(np.average([song["mse"][source] for song in songs], weights=lengths)) for source in sources}
    figures = {"mse": float(np.mean(list(errors.values())))}
    figures |= {f"mse_{source}": error for source, error in errors.items()}
    for ratio in RATIOS:
        values = {source: [song[ratio][source] for song in songs] for source in sources}
        figures[ratio] = mean_of_known([value for of_source in values.values() for value in of_source])
        figures |= {f"{ratio}_{source}": mean_of_known(of_source) for source, of_source in values.items()}
    if speech := {source: [song["speech"][source] for song in songs] for source in songs[0]["speech"]}:
        figures["speech"] = {source: _speech(of_songs) for source, of_songs in speech.items()}
    frames = {
        metric: {
            source: [song["frames"][source][metric] for song in songs if source in song["frames"]] for source in sources
        }
        for metric in METRICS
    }
    if not any(map(len, frames["SDR"].values())):
        return figures
    figures["museval"] = {name: {} for name in AGGREGATES}
    for metric, by_source in frames.items():
        aggregates = {source: aggregate(values) for source, values in by_source.items()}
        for name in AGGREGATES:
            values = {source: aggregates[source][name] for source in sources}
            figures["museval"][name][metric] = {"all": mean_over_sources(values), **values}
    figures["song_medians"] = {source: song_medians(values) for source, values in frames["SDR"].items()}
    return figures


def _speech(songs: Sequence[Mapping[str, Sequence[float | None]]]) -> dict[str, Any]:
    metrics = list(songs[0])
    return {
        **{metric: mean_of_known([mean_of_known(song[metric]) for song in songs]) for metric in metrics},
        "excerpts": sum(len(song[metrics[0]]) for song in songs),
        "missing": {metric: sum(song[metric].count(None) for song in songs) for metric in metrics},
    }
