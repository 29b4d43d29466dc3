"""Songs scored in parallel, and the figures over all of them, in a folder that the next evaluation goes on from."""

import contextlib
import json
import os
from collections.abc import Sequence
from typing import Any

from pipelines.errors import UserError
from pipelines.files import folder_lock, whole_file
from pipelines.progress import progress_bar
from pipelines.workers import num_cores, run_jobs
from sepnet.evaluation.aggregates import AGGREGATES, WHOLE_SONGS, summarise
from sepnet.evaluation.scores import Job, score_song

# museval cannot be stopped inside of a song, so processes that are to stop are ended after this time.
PATIENCE_SECONDS = 1.0
# Measured: what a process takes with a model and museval's filters, and museval for each sample of a song's stems.
PROCESS_BYTES = 1_500_000_000
MUSEVAL_BYTES = 110


def evaluate(jobs: Sequence[Job], workers: int | None = None) -> dict[str, Any]:
    """Scores songs and writes `figures.json` and `manifest.json`, which depend on songs, models and versions alone.

    Args:
        jobs: songs with the same models, sources and output folder, one or more.
        workers: songs at a time, each in a process; None takes what cores and memory allow.

    Returns:
        `meanings`, how the figures of songs become one, by name; `methods`, see
        `sepnet.evaluation.aggregates.summarise`; `left_out`, what museval has no figures of, with the reason; and
        `too_quiet`, the sources of songs below -80 dBFS, of which ratios say nothing.

    Raises:
        UserError: a song or a model could not be used; the songs that are done are kept.
    """
    output = jobs[0].output
    with folder_lock(output):
        scores = _score(jobs, workers or fitting_workers(jobs))
        figures = {
            "meanings": {**WHOLE_SONGS, **AGGREGATES},
            "methods": summarise(scores, list(jobs[0].parts)),
            "left_out": [
                {"song": job.track.name, "method": method, "source": source, "reason": reason}
                for job, song in zip(jobs, scores, strict=True)
                for method, figures in song.items()
                for source, reason in figures["left_out"].items()
            ],
            "too_quiet": [
                {"song": job.track.name, "source": source}
                for job, song in zip(jobs, scores, strict=True)
                for source, ratio in next(iter(song.values()))["si_sdr"].items()
                if ratio is None
            ],
        }
        for name, content in (("figures.json", figures), ("manifest.json", _manifest(jobs, scores))):
            with whole_file(output / name) as temporary:
                temporary.write_text(json.dumps(content, indent=2))
    return figures


def fitting_workers(jobs: Sequence[Job]) -> int:
    """The number of songs that fit the cores and the free memory at once, by what museval takes of the longest."""
    import psutil

    longest = max(job.track.num_samples * len(job.parts) * max(job.track.channel_counts) for job in jobs)
    needed = PROCESS_BYTES + (0 if jobs[0].quick else MUSEVAL_BYTES * longest)
    return max(min(num_cores(), psutil.virtual_memory().available // needed), 1)


def _score(jobs: Sequence[Job], workers: int) -> list[dict[str, dict[str, Any]]]:
    """The scores of every song, in order."""
    # Several processes share a GPU if none takes all of its memory at once.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    seconds = sum(job.track.num_samples / job.track.sample_rate * len(job.methods) for job in jobs)
    scores, errors = {}, []
    with (
        progress_bar("scoring", total=seconds, unit="s of estimates") as advance,
        contextlib.closing(
            run_jobs(score_song, jobs, advance=advance, workers=workers, patience_seconds=PATIENCE_SECONDS)
        ) as results,
    ):
        for job, result in results:
            if isinstance(result, UserError):
                errors.append(f"song {job.track.name!r}: {result}")
            else:
                scores[job.track.name] = result
            advance(0, job.track.name)
    if errors:
        more = f" ({len(errors) - 1} more)" if len(errors) > 1 else ""
        raise UserError(f"{errors[0]}{more}; {len(scores)} of {len(jobs)} songs are done and kept")
    return [scores[job.track.name] for job in jobs]


def _manifest(jobs: Sequence[Job], scores: Sequence[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """Everything that the figures depend on, with the content of songs and models as hashes."""
    depends_on = [next(iter(song.values()))["depends_on"] for song in scores]
    common = {name: value for name, value in depends_on[0].items() if name not in ("song", "model")}
    songs = {job.track.name: one["song"] for job, one in zip(jobs, depends_on, strict=True)}
    return {**common, "split": jobs[0].track.split, "songs": songs, "models": dict(jobs[0].hashes)}
