"""What a worker does: separates the songs of a shard, makes clips of them and writes the shard."""

import dataclasses
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.captioned.songs import CaptionedSong
from pipelines.errors import UserError
from sepnet.augmentation.excerpts import Placed, excerpts
from sepnet.clips.captions import Hook, load_hook
from sepnet.clips.make import Clip, clips_of, remixes_of
from sepnet.clips.measures import ratio_db, silence
from sepnet.clips.recipes import ClipKind, Recipe
from sepnet.stem_sets.attempts import Attempts
from sepnet.stem_sets.stem_set import StemSet


@dataclasses.dataclass(frozen=True)
class Job:
    """Everything that the workers of a run share.

    Attributes:
        stem_set: what is written.
        songs: of the collection, in its order.
        recipe: what is made of them.
        hook: `module:function` for captions; empty for none.
        num_threads: that a worker's model runs on.
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
    """Makes shards, one after the other, with a model that it loads at the first.

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

    def make(self, shard: int) -> dict[str, Any]:
        """Makes a shard, if it is not there, and says what it took.

        Raises:
            UserError: the shard cannot be written.
        """
        begin, ran = time.perf_counter(), self.model.seconds
        made = _Made(self)
        stem_set = self.job.stem_set
        if not stem_set.is_done(shard):
            attempts = Attempts(stem_set.destination, shard, self.job.run)
            stem_set.write_shard(shard, made.clips(self.job.songs_of(shard), attempts), made.failed)
        return {
            "audio_seconds": made.audio_seconds,
            "joules": made.joules,
            "seconds": time.perf_counter() - begin,
            "model_seconds": self.model.seconds - ran,
        }


class _Made:
    """The clips of a shard, while they are made."""

    def __init__(self, worker: Worker):
        self._worker = worker
        self.failed: list[dict[str, Any]] = []
        self.audio_seconds = self.joules = 0.0

    def clips(self, songs: Sequence[CaptionedSong], attempts: Attempts) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
        """Yields the rows and the audio of all songs, and then those of remixes, of each song's loudest excerpt."""
        loudest: dict[str, Placed] = {}
        for song in songs:
            reasons, num_clips = [], 0
            if fault := attempts.fault(song.id):
                reasons.append(fault)
            else:
                attempts.begin(song.id)
                try:
                    for clip in self._song(song, loudest, reasons.append):
                        yield clip
                        num_clips += 1
                except UserError as error:
                    loudest.pop(song.id, None)
                    reasons.append(str(error))
            if reasons:
                self.failed.append({"song_id": song.id, "reason": "; ".join(reasons), "num_clips": num_clips})
        yield from self._remixes(list(loudest.values()), attempts)
        attempts.end()

    def _song(
        self, song: CaptionedSong, loudest: dict[str, Placed], note: Callable[[str], None]
    ) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
        worker, recipe = self._worker, self._worker.job.recipe
        seconds, joules = worker.model.seconds, worker.meter.joules
        most = -1.0
        for placed in excerpts(
            song, worker.separator, recipe.clip_seconds, with_tempo=recipe.needs_tempo_and_key, note=note
        ):
            # Some networks make sound of silence.
            is_heard = silence(placed.excerpt.mixture, placed.excerpt.sample_rate) < 1
            clips = list(clips_of(placed.excerpt, recipe, worker.hook)) if is_heard else []
            # The clips of an excerpt share what it took.
            spent = (worker.model.seconds - seconds, worker.meter.joules - joules)
            seconds, joules = seconds + spent[0], joules + spent[1]
            self.audio_seconds += len(placed.excerpt.mixture) / placed.excerpt.sample_rate
            self.joules += spent[1]
            for clip in clips:
                yield self._row(clip, placed, None, *(value / len(clips) for value in spent)), clip.audio
            power = float(np.square(placed.excerpt.mixture).sum())
            if recipe.has_remixes and power > most:
                most, loudest[song.id] = power, placed

    def _remixes(self, placed: Sequence[Placed], attempts: Attempts) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
        for first in placed:
            attempts.begin(first.excerpt.song)
            for place, second in enumerate(placed):
                rates = {(each.excerpt.sample_rate, each.excerpt.mixture.shape[1]) for each in (first, second)}
                if first is second or len(rates) > 1:
                    continue
                for clip in remixes_of(first.excerpt, second.excerpt, self._worker.job.recipe, self._worker.hook):
                    yield self._row(clip, first, second, 0.0, 0.0, f"-{place:02d}"), clip.audio

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
