"""A worker: separates the songs of a shard, makes clips of them and writes the shard."""

import collections
import dataclasses
import functools
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.captioned.songs import CaptionedSong
from pipelines.errors import RunError, UserError, named
from pipelines.threads import read_ahead, run_ahead
from sepnet.augmentation.excerpts import Placed, excerpts
from sepnet.clips.captions import Hook, load_hook
from sepnet.clips.make import Clip, clips_of, remixes_of
from sepnet.clips.measures import ratio_db, silence
from sepnet.clips.recipes import ClipKind, Recipe
from sepnet.clips.tempo_and_key import tempo_and_key
from sepnet.stem_sets.attempts import Attempts
from sepnet.stem_sets.stem_set import StemSet

# That wait for a thread which makes clips of them.
EXCERPTS_AHEAD = 2


@dataclasses.dataclass(frozen=True)
class Job:
    """Everything that the workers of a run share.

    Attributes:
        stem_set: what is written.
        songs: of the collection, in its order.
        recipe: what is made of them.
        hook: `module:function` for captions; empty for none.
        num_threads: that a worker's model runs on, and as many again that make clips.
        val_mse: of the model, if its contract says.
        run: a name that no other run has.
    """

    stem_set: StemSet
    songs: Sequence[CaptionedSong]
    recipe: Recipe
    hook: str
    num_threads: int
    val_mse: float | None
    run: str

    def songs_of(self, shard: int) -> Sequence[CaptionedSong]:
        """The songs that share a shard."""
        size = self.stem_set.settings.songs_per_shard
        return self.songs[shard * size : (shard + 1) * size]


class Worker:
    """Makes shards, one after the other, with a model that it loads.

    Args:
        job: of the run.
        model: the files of a SavedModel's version, by name.
    """

    def __init__(self, job: Job, model: Mapping[str, bytes]):
        # TensorFlow reads it when it is imported.
        os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(job.num_threads)
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        from sepnet.export.saved_model import SavedModel
        from sepnet.measures.energy import EnergyMeter
        from sepnet.separation.separator import Separator
        from sepnet.separation.timed import TimedModel

        self.job = job
        with tempfile.TemporaryDirectory(prefix="sepnet-model-") as name:
            # Named as at home: a version is the name of its folder.
            version = pathlib.Path(name, job.stem_set.settings.model, job.stem_set.settings.model_version)
            for file, content in model.items():
                (version / file).parent.mkdir(parents=True, exist_ok=True)
                (version / file).write_bytes(content)
            self.model = TimedModel(SavedModel(version))
        self.separator = Separator(self.model)
        self.hook: Hook | None = load_hook(job.hook) if job.hook else None
        self.meter = EnergyMeter()

    def make(self, shard: int, attempts: Attempts) -> dict[str, Any]:
        """Makes a shard, if it is not there, and says what it took.

        Args:
            shard: its number.
            attempts: of the shard, begun.

        Raises:
            UserError: the shard cannot be written.
            RunError: songs cannot be reached or copied, or the function for captions fails.
        """
        begin, ran, joules = time.perf_counter(), self.model.seconds, self.meter.joules
        made = _Made(self)
        stem_set = self.job.stem_set
        if not stem_set.is_done(shard):
            clips = made.clips(self.job.songs_of(shard), attempts)
            stem_set.write_shard(shard, clips, made.failed(), num_threads=self.job.num_threads)
        attempts.end()
        return {
            "audio_seconds": made.audio_seconds,
            "joules": self.meter.joules - joules,
            "seconds": time.perf_counter() - begin,
            "model_seconds": self.model.seconds - ran,
            # By the machine's clock: of several workers, the shards of one begin before those of another end.
            "ended": time.time(),
        }


@dataclasses.dataclass(frozen=True)
class _MadeOfExcerpt:
    """The clips of an excerpt, their rows and audio, and the excerpt's energy, full scale 1."""

    placed: Placed
    clips: Sequence[tuple[dict[str, Any], np.ndarray]]
    power: float


class _Made:
    """The clips of a shard, while they are made."""

    def __init__(self, worker: Worker):
        self._worker = worker
        self._seconds, self._joules = worker.model.seconds, worker.meter.joules
        self._reasons: dict[str, list[str]] = collections.defaultdict(list)
        self._num_clips: collections.Counter[str] = collections.Counter()
        self.audio_seconds = 0.0

    def clips(self, songs: Sequence[CaptionedSong], attempts: Attempts) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
        """Yields the rows and the audio of all songs, and then those of remixes, of each song's loudest excerpt."""
        loudest: dict[str, Placed] = {}
        for song in songs:
            reasons = self._reasons[song.id]
            if fault := attempts.fault(song.id):
                reasons.append(fault)
                continue
            attempts.begin(song.id)
            try:
                for clip in self._song(song, loudest, reasons.append):
                    yield clip
                    self._num_clips[song.id] += 1
            except RunError:
                raise
            # One song of a million does not end the run, whatever its sound makes a decoder or a measure do.
            except Exception as error:
                loudest.pop(song.id, None)
                reasons.append(_reason(error))
        for song_id, first in loudest.items():
            attempts.begin(song_id)
            try:
                yield from self._remixes(first, list(loudest.values()))
            except RunError:
                raise
            except Exception as error:
                self._reasons[song_id].append(f"its remixes: {_reason(error)}")
        attempts.begin()

    def failed(self) -> Iterator[dict[str, Any]]:
        """Yields the songs that something was wrong with, in order, as `failed.parquet` has them; after the clips."""
        for song_id, reasons in self._reasons.items():
            if reasons:
                yield {"song_id": song_id, "reason": "; ".join(reasons), "num_clips": self._num_clips[song_id]}

    def _song(
        self, song: CaptionedSong, loudest: dict[str, Placed], note: Callable[[str], None]
    ) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
        separator, recipe = self._worker.separator, self._worker.job.recipe
        placed = excerpts(song, separator, recipe.clip_seconds, self._worker.job.stem_set.check_audio, note)
        most = -1.0
        # The model is at the next excerpts while clips are made of the last ones, encoded and written.
        separated = read_ahead(map(self._with_cost, placed), EXCERPTS_AHEAD)
        for made in run_ahead(self._clips_of, separated, self._worker.job.num_threads):
            yield from made.clips
            if recipe.has_remixes and made.power > most:
                most, loudest[song.id] = made.power, made.placed

    def _with_cost(self, placed: Placed) -> tuple[Placed, float, float]:
        """An excerpt, and the seconds and joules since the last one; its clips share them."""
        worker = self._worker
        cost = worker.model.seconds - self._seconds, worker.meter.joules - self._joules
        self._seconds, self._joules = self._seconds + cost[0], self._joules + cost[1]
        self.audio_seconds += len(placed.excerpt.mixture) / placed.excerpt.sample_rate
        return placed, *cost

    def _clips_of(self, given: tuple[Placed, float, float]) -> _MadeOfExcerpt:
        placed, *cost = given
        recipe, excerpt = self._worker.job.recipe, placed.excerpt
        if recipe.needs_tempo_and_key:
            found = tempo_and_key(excerpt.mixture, excerpt.sample_rate)
            excerpt = dataclasses.replace(excerpt, tempo_and_key=found)
            placed = dataclasses.replace(placed, excerpt=excerpt)
        # Some networks make sound of silence.
        is_heard = silence(excerpt.mixture, excerpt.sample_rate) < 1
        clips = list(clips_of(excerpt, recipe, self._worker.hook)) if is_heard else []
        rows = [(self._row(clip, placed, None, *(value / len(clips) for value in cost)), clip.audio) for clip in clips]
        return _MadeOfExcerpt(placed, rows, float(np.square(excerpt.mixture).sum()))

    def _remixes(self, first: Placed, placed: Sequence[Placed]) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
        others = [(place, second) for place, second in enumerate(placed) if second is not first]
        for rows in run_ahead(functools.partial(self._remixes_of, first), others, self._worker.job.num_threads):
            yield from rows

    def _remixes_of(self, first: Placed, other: tuple[int, Placed]) -> list[tuple[dict[str, Any], np.ndarray]]:
        place, second = other
        rates = {(each.excerpt.sample_rate, each.excerpt.mixture.shape[1]) for each in (first, second)}
        if len(rates) > 1:
            return []
        clips = remixes_of(first.excerpt, second.excerpt, self._worker.job.recipe, self._worker.hook)
        return [(self._row(clip, first, second, 0.0, 0.0, f"-{place:02d}"), clip.audio) for clip in clips]

    def _row(
        self, clip: Clip, placed: Placed, other: Placed | None, seconds: float, joules: float, suffix: str = ""
    ) -> dict[str, Any]:
        """The columns of a clip; the suffix is of its name, where song, place and kind leave it open."""
        job, found = self._worker.job, placed.excerpt.tempo_and_key
        name = f"{round(1000 * placed.start_seconds):08d}-{clip.number:02d}-{clip.kind}{suffix}"
        before = after = None
        if clip.kind == ClipKind.STEM:
            [stem] = (placed.excerpt.estimates[source] for source in clip.sources)
            before = ratio_db(*(float(np.square(each).sum()) for each in (stem, placed.excerpt.mixture - stem)))
            if clip.measures.bleed is not None:
                after = ratio_db(1 - clip.measures.bleed, clip.measures.bleed)
        return {
            "id": f"{clip.song}/{name}",
            "song_id": clip.song,
            "other_song_id": clip.other_song,
            "start_seconds": placed.start_seconds,
            "other_start_seconds": other.start_seconds if other else None,
            "duration_seconds": len(clip.audio) / clip.sample_rate,
            "sample_rate": clip.sample_rate,
            "kind": str(clip.kind),
            "sources": list(clip.sources),
            "other_sources": list(clip.other_sources) if other else None,
            "song_caption": placed.excerpt.caption,
            "caption": clip.caption,
            **dataclasses.asdict(clip.measures),
            "snr_before_db": before,
            "snr_after_db": after,
            "gain_db": clip.gain_db,
            "passes": not clip.reasons,
            "reasons": list(clip.reasons),
            "tempo_bpm": found.tempo_bpm if found else None,
            "tempo_confidence": found.tempo_confidence if found else None,
            "key": found.key if found else None,
            "key_confidence": found.key_confidence if found else None,
            "model": job.stem_set.settings.model,
            "model_version": job.stem_set.settings.model_version,
            "val_mse": job.val_mse,
            "separation_seconds": seconds,
            "separation_joules": joules,
        }


def _reason(error: Exception) -> str:
    """Returns the reason of a song's failure; that of an unforeseen error begins with its type."""
    return str(error) if isinstance(error, UserError) else named(error)
