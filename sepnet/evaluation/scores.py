"""Errors and ratios of one song, by method, kept in files that the next evaluation reads again."""

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

import sepnet
from pipelines.errors import UserError
from pipelines.files import whole_file
from pipelines.songs.layouts import Track
from pipelines.workers import Advance
from sepnet.config.songs import read_song
from sepnet.evaluation import bss_eval
from sepnet.evaluation.oracle_masks import ideal_ratio_mask
from sepnet.evaluation.speech import speech_scores, versions
from sepnet.measures.baselines import BASELINES, SILENCE
from sepnet.measures.provenance import content_hash
from sepnet.separation.separator import Separator

# Bytes: most file systems take 255.
LONGEST_NAME, LONGEST_BEGINNING = 250, 200
RATIO_MASK = "ideal ratio mask"
# Floors, of which mixture/num_sources is SiSEC's MIX, and a ceiling.
REFERENCES = (*BASELINES, RATIO_MASK)
# Measured where it is asked for; named as what the figures depend on.
ASKED_FOR = {"museval", "speech"}


@dataclasses.dataclass(frozen=True)
class Job:
    """A song to be scored.

    Attributes:
        track: the song.
        parts: the stems whose sum each source is.
        models: folders of SavedModels' versions, by the model's name.
        hashes: of those folders' content, by the same names.
        output: folder of the figures.
        quick: leaves out museval and the ratio mask.
        speech: the sources that are measured as speech, too.
    """

    track: Track
    parts: Mapping[str, tuple[str, ...]]
    models: Mapping[str, pathlib.Path]
    hashes: Mapping[str, str]
    output: pathlib.Path
    quick: bool = False
    speech: tuple[str, ...] = ()

    @property
    def methods(self) -> list[str]:
        """The models, and the references that need none."""
        return [*self.models, *(name for name in REFERENCES if not (self.quick and name == RATIO_MASK))]

    def figures_file(self, method: str) -> pathlib.Path:
        """The file of a method's figures."""
        return self.output / "songs" / method_folder(method) / file_name(self.track.name)

    def museval_file(self, method: str) -> pathlib.Path:
        """The file of museval's figures, which `museval.EvalStore.add_eval_dir` finds for songs of a test split."""
        return self.output / "museval" / method_folder(method) / self.track.split / file_name(self.track.name)


def file_name(song: str) -> str:
    """The name of a song's JSON file: a song's name may be as long as the file system allows without a suffix."""
    name = os.fsencode(song)
    if len(name) <= LONGEST_NAME:
        return f"{song}.json"
    beginning = name[:LONGEST_BEGINNING].decode(errors="ignore")
    return f"{beginning}-{hashlib.sha256(name).hexdigest()[:8]}.json"


def method_folder(method: str) -> str:
    """A method's name without slashes."""
    return method.replace("/", "_")


def check_names(models: Iterable[str]) -> None:
    """Raises a `UserError` if a model is called like a baseline."""
    taken = {method_folder(name) for name in REFERENCES}
    if taken & set(map(method_folder, models)):
        raise UserError(f"a model has the name of a baseline ({', '.join(sorted(taken))}); rename its folder")


def score_song(job: Job, advance: Advance) -> dict[str, dict[str, Any]]:
    """Scores all methods on one song; what is kept from before and still true is not measured again.

    Returns:
        By method: `num_samples`; `mse`, `si_sdr` and `sdr` by source, the ratios in dB and None where the source is
        below -80 dBFS; `speech`, by source what `sepnet.evaluation.speech.speech_scores` gives; `frames`, museval's
        figures by source and metric, NaN where there is none; `left_out`, why museval has none of a source; and
        `depends_on`.

    Raises:
        UserError: a model or the song cannot be used.
    """
    # As JSON holds it, for it is compared with what was read from there.
    parts = {source: list(stems) for source, stems in job.parts.items()}
    song = {"sepnet": sepnet.__version__, "song": content_hash(job.track.files), "sources": parts}
    read = functools.cache(functools.partial(read_song, job.track, job.parts))
    scores = {}
    for method in job.methods:
        depends_on = song | ({"model": job.hashes[method]} if method in job.models else {})
        if not job.quick:
            depends_on["museval"] = importlib.metadata.version("museval")
        if job.speech:
            depends_on["speech"] = {"sources": list(job.speech), **versions()}
        stored = _stored(job, method, depends_on)
        if stored is None:
            _measure(job, method, depends_on, *read())
            stored = _stored(job, method, depends_on)
        scores[method] = stored
        advance(job.track.num_samples / job.track.sample_rate)
    return scores


def _stored(job: Job, method: str, depends_on: Mapping[str, Any]) -> dict[str, Any] | None:
    """Reads the figures of a method; None if there are none, or they depend on something else."""
    figures = _kept(job, method, depends_on)
    if figures is None or {name: figures["depends_on"].get(name) for name in depends_on} != depends_on:
        return None
    # What was measured besides is left out, so that the figures do not depend on what was there before.
    return {
        **figures,
        "depends_on": depends_on,
        "speech": figures["speech"] if job.speech else {},
        "frames": {} if job.quick else figures["frames"],
        "left_out": {} if job.quick else figures["left_out"],
    }


def _kept(job: Job, method: str, depends_on: Mapping[str, Any]) -> dict[str, Any] | None:
    """Reads the figures of the same song and model, whatever was measured of them; None if there are none."""
    try:
        figures = json.loads(job.figures_file(method).read_text())
        kept = figures["depends_on"]
        if any(kept.get(name) != value for name, value in depends_on.items() if name not in ASKED_FOR):
            return None
        frames = _read_frames(job.museval_file(method)) if figures["has_frames"] else {}
        return {**figures, "frames": frames, "left_out": figures["left_out"], "speech": figures["speech"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # Not there yet, or damaged: it is measured anew.
        return None


def _measure(
    job: Job, method: str, depends_on: Mapping[str, Any], mixture: np.ndarray, sources: Mapping[str, np.ndarray]
) -> None:
    """Writes the figures of a method. What is there already and still true is kept, also where it is not asked for."""
    kept = _kept(job, method, depends_on) or {"depends_on": {}}
    still = {name: value for name, value in kept["depends_on"].items() if name in ASKED_FOR}
    still = {name: value for name, value in still.items() if depends_on.get(name, value) == value}
    missing = set() if method == SILENCE else depends_on.keys() & ASKED_FOR - still.keys()
    estimates = _estimate(job, method, mixture, sources)
    frames, left_out = (kept["frames"], kept["left_out"]) if "museval" in still else ({}, {})
    speech = kept["speech"] if "speech" in still else {}
    if "museval" in missing:
        frames, left_out = bss_eval.frame_scores(sources, estimates, job.track.sample_rate)
        if frames:
            _write(job.museval_file(method), bss_eval.track_json(job.track.name, frames))
    if "speech" in missing:
        speech = {
            source: speech_scores(sources[source], estimates[source], job.track.sample_rate) for source in job.speech
        }
    if not frames:
        # museval would find that of the song as it was before.
        job.museval_file(method).unlink(missing_ok=True)
    figures = {
        "depends_on": {**depends_on, **still},
        "num_samples": job.track.num_samples,
        **_whole_song(sources, estimates),
        "has_frames": bool(frames),
        "left_out": left_out,
        "speech": speech,
    }
    _write(job.figures_file(method), json.dumps(figures, indent=2))


def _estimate(
    job: Job, method: str, mixture: np.ndarray, sources: Mapping[str, np.ndarray]
) -> Mapping[str, np.ndarray]:
    if method in job.models:
        return _separator(job.models[method])(mixture, job.track.sample_rate)
    if method == RATIO_MASK:
        return ideal_ratio_mask(mixture, sources)
    return dict.fromkeys(sources, BASELINES[method](mixture, len(sources)))


def _whole_song(sources: Mapping[str, np.ndarray], estimates: Mapping[str, np.ndarray]) -> dict[str, dict]:
    from sepnet.measures.metrics import is_heard, sdr_db, si_sdr_db, squared_errors

    true, predicted = (np.stack([stems[source] for source in sources], axis=1)[None] for stems in (sources, estimates))
    heard = np.asarray(is_heard(true))[0]
    figures = {"mse": dict(zip(sources, np.asarray(squared_errors(true, predicted))[0].tolist(), strict=True))}
    for name, measure in (("si_sdr", si_sdr_db), ("sdr", sdr_db)):
        values = np.asarray(measure(true, predicted))[0].tolist()
        figures[name] = {source: values[at] if heard[at] else None for at, source in enumerate(sources)}
    return figures


# A model is loaded once in each process.
_separator = functools.cache(Separator)


def _read_frames(path: pathlib.Path) -> dict[str, dict[str, np.ndarray]]:
    """museval's figures by source and metric, in order of time."""
    return {
        target["name"]: {
            metric: np.array([frame["metrics"][metric] for frame in target["frames"]], np.float64)
            for metric in bss_eval.METRICS
        }
        for target in json.loads(path.read_text())["targets"]
    }


def _write(path: pathlib.Path, text: str) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(text)
