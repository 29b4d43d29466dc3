"""Tells how many clips a run has made, at what cost, and what a larger one would take."""

import dataclasses
import math
from typing import Any

from pipelines.tables import print_table
from sepnet.measures.energy import JOULES_PER_KWH
from sepnet.stem_sets.stem_set import Totals

MANY_SONGS = 1_000_000


@dataclasses.dataclass
class Spent:
    """Time and energy that the shards of this run took together.

    Attributes:
        songs: that were read, or could not be.
        audio_seconds: that were separated.
        seconds: from the first shard's begin to the last one's end.
        worker_seconds: that workers were at shards.
        model_seconds: that models ran.
        joules: of all workers.
    """

    songs: int = 0
    audio_seconds: float = 0.0
    seconds: float = 0.0
    worker_seconds: float = 0.0
    model_seconds: float = 0.0
    joules: float = 0.0

    def add(self, row: dict[str, Any], songs: int) -> None:
        """Adds what a shard took, a row of `sepnet.augmentation.engine.make_shards`."""
        self.songs += songs
        self.audio_seconds += row["audio_seconds"]
        self.worker_seconds += row["seconds"]
        self.model_seconds += row["model_seconds"]
        self.joules += row["joules"]


def summarize(totals: Totals, spent: Spent, workers: int, cluster: int) -> dict[str, Any]:
    """Makes the summary of a run, plain values for JSON.

    Args:
        totals: of the whole set.
        spent: by this run; a run that found everything done has separated nothing.
        workers: of this run.
        cluster: workers of the cluster for which a million songs are reckoned.
    """
    summary = {"set": dataclasses.asdict(totals), "run": {**dataclasses.asdict(spent), "workers": workers}}
    if spent.audio_seconds:
        hours = spent.audio_seconds / 3600
        seconds_per_song = spent.seconds / spent.songs
        summary["rates"] = {
            "audio_hours_per_hour": spent.audio_seconds / spent.seconds,
            "joules_per_audio_hour": spent.joules / hours,
            "model_share": spent.model_seconds / (workers * spent.seconds),
        }
        summary["million_songs"] = {
            "days_here": MANY_SONGS * seconds_per_song / 86_400,
            "days_on_cluster": MANY_SONGS * seconds_per_song * workers / cluster / 86_400,
            "cluster_workers": cluster,
            "kwh": MANY_SONGS * spent.joules / spent.songs / JOULES_PER_KWH,
        }
    return summary


def print_summary(summary: dict[str, Any]) -> None:
    """Prints a summary as a table."""
    whole = summary["set"]
    rows = [
        (
            "songs",
            f"{whole['num_songs']:,}",
            f"{whole['num_failed']:,} could not be used, {whole['num_partial']:,} in part alone: failed.parquet",
        ),
        ("clips", f"{whole['num_clips']:,}", f"{whole['clip_seconds'] / 3600:.2f} h, {whole['num_passing']:,} pass"),
        *(("", f"{count:,}", f"do not pass: {reason}") for reason, count in whole["reasons"].items()),
    ]
    for source, (before, after) in whole["snr_db"].items():
        if before is not None and after is not None:
            rows.append((source, f"{after:.1f}", f"dB over the rest, {before:.1f} in the mixture, by estimates"))
    if "rates" in summary:
        rates, many = summary["rates"], summary["million_songs"]
        rows += [
            ("speed", f"{rates['audio_hours_per_hour']:.1f}", "hours of audio an hour"),
            ("", f"{rates['model_share']:.0%}", "of the time the model ran"),
            ("energy", _rounded(rates["joules_per_audio_hour"]), "joules for an hour of audio"),
            ("a million", _rounded(many["days_here"]), f"days here, {_rounded(many['kwh'])} kWh"),
            ("songs", _rounded(many["days_on_cluster"]), f"days with {many['cluster_workers']} such workers"),
        ]
    print_table(("", "", ""), rows, texts=(0, 2), boxed=False)


def _rounded(value: float) -> str:
    """A number with two digits that say something."""
    if not value:
        return "0"
    digits = max(1 - math.floor(math.log10(abs(value))), 0)
    return f"{round(value, digits):,.{digits}f}"
