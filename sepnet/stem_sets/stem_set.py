"""Stem sets, written shard by shard so that nothing is lost and nothing comes twice."""

import collections
import contextlib
import dataclasses
import hashlib
import io
import json
import pathlib
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from pipelines.errors import UserError, check_packages
from pipelines.storage import check_name
from pipelines.threads import run_ahead
from sepnet.separation.stem_files import encode_clip
from sepnet.stem_sets.attempts import ATTEMPTS_SUFFIX
from sepnet.stem_sets.columns import clip_schema, failed_schema, names_beside_audio
from sepnet.stem_sets.destination import Destination
from sepnet.stem_sets.settings import StemSetSettings

if TYPE_CHECKING:
    import pyarrow

SETTINGS, SUMMARY = "settings.json", "summary.json"
MANIFEST, FAILED = "manifest.parquet", "failed.parquet"
SNR = ("snr_before_db", "snr_after_db")
PART_SUFFIX, FAILED_SUFFIX = ".parquet", ".failed.parquet"
LAYOUTS = ("webdataset", "folder")
AUDIO_FORMATS = ("flac", "opus")
# Those that wait in memory: of a shard, and of all shards, where they become a row group that readers take as one.
ROWS_OF_SHARD = 1 << 10
ROWS_OF_SET = 1 << 16


@dataclasses.dataclass(frozen=True)
class Totals:
    """The contents of a finished set, counted.

    Attributes:
        num_songs: of the collection.
        num_failed: songs that are listed in `failed.parquet` and have no clips.
        num_partial: songs that are listed there and have clips.
        num_clips: all clips, and `num_passing` those of them that pass the quality gate.
        clip_seconds: length of all clips together.
        reasons: how many clips do not pass, by reason; a clip may have several.
        snr_db: of the clips of one source, by source, the means of `snr_before_db` and `snr_after_db`.
        separation_seconds: time that was spent on the clips.
        separation_joules: energy, of the clips for which it was measured; None without any.
    """

    num_songs: int
    num_failed: int
    num_partial: int
    num_clips: int
    num_passing: int
    clip_seconds: float
    reasons: dict[str, int]
    snr_db: dict[str, tuple[float | None, float | None]]
    separation_seconds: float
    separation_joules: float | None


@dataclasses.dataclass(frozen=True)
class StemSet:
    """A set that is being written, or is finished. Several processes may hold it, on several machines.

    A shard is done if its part, which is written last, is there. Written once more it gives the same files, so a run
    that was killed loses the shards that it was at, and nothing else.
    """

    destination: Destination
    settings: StemSetSettings

    @classmethod
    def create_or_continue(cls, address: str, settings: StemSetSettings) -> "StemSet":
        """Begins a set, or goes on with one that was made with the same settings. What killed runs left is removed.

        Args:
            address: of a folder that is new or empty, or holds the set.
            settings: what the clips depend on.

        Raises:
            UserError: the folder holds something else, or a set of other settings; it cannot be written.
        """
        check_packages(["pyarrow"], "stem sets", "augment")
        for name, known in (("layout", LAYOUTS), ("audio_format", AUDIO_FORMATS)):
            if getattr(settings, name) not in known:
                raise UserError(f"{name} is {getattr(settings, name)!r}; expected {' or '.join(known)}")
        destination = Destination(address)
        with destination.working_folder() as folder, destination.lock():
            names = destination.names()
            if names and SETTINGS not in names:
                raise UserError(f"{address} holds {names[0]!r} and no stem set; give a folder that is new or empty")
            file = folder / SETTINGS
            file.write_text(json.dumps(dataclasses.asdict(settings), indent=2) + "\n", encoding="utf-8")
            destination.put_first(file, SETTINGS)
        _check_settings(destination, settings)
        return cls(destination, settings)

    def is_done(self, shard: int) -> bool:
        """True if a shard is written."""
        return self.destination.exists(_part(shard, PART_SUFFIX))

    def shards_to_do(self) -> list[int]:
        """The numbers of the shards that are not written."""
        done = {f"parts/{name}" for name in self.destination.names("parts")}
        return [shard for shard in range(self.settings.num_shards) if _part(shard, PART_SUFFIX) not in done]

    def check_audio(self, sample_rate: int, num_channels: int) -> None:
        """Raises a `UserError` if clips of such audio cannot be written in the set's format."""
        audio_format = self.settings.audio_format
        try:
            encode_clip(np.zeros((sample_rate, num_channels), np.float32), sample_rate, audio_format)
        except soundfile.LibsndfileError as error:
            raise UserError(
                f"{audio_format} cannot hold this audio ({sample_rate} Hz, channels: {num_channels}); convert the song "
                "to a usual rate, or to fewer channels"
            ) from error

    def write_shard(
        self,
        shard: int,
        clips: Iterable[tuple[Mapping[str, Any], np.ndarray]],
        failed: Iterable[Mapping[str, Any]],
        *,
        num_threads: int = 1,
    ) -> None:
        """Writes a shard: its audio, then its failed songs, then its part. Of two writers the first to end counts.

        Args:
            shard: its number.
            clips: each with its columns but for `num_channels`, `shard`, `file`, `member` and `sha256`, and its audio,
                float32 `[num_samples, num_channels]` at the row's `sample_rate`. Its `id` is the song's, `/` and a name
                without `/`. They are taken one by one.
            failed: `song_id`, `reason` and `num_clips` of the songs that went wrong; read when there are no more clips.
            num_threads: that encode clips while the next ones are taken.

        Raises:
            UserError: it cannot be written. Nothing of the shard counts then.
        """
        with self.destination.working_folder() as folder:
            stage, part, failed_part = folder / "stage", folder / "part", folder / "failed"
            _write_table(part, clip_schema(), self._rows(shard, clips, stage, num_threads), ROWS_OF_SHARD)
            failed_rows = [{**row, "shard": shard} for row in failed]
            _write_table(failed_part, failed_schema(), [_table(failed_rows, failed_schema())], ROWS_OF_SHARD)
            with self.destination.lock():
                if self.is_done(shard):
                    return
                for file in sorted(path for path in stage.rglob("*") if path.is_file()):
                    self.destination.put(file, file.relative_to(stage).as_posix())
                self.destination.put(failed_part, _part(shard, FAILED_SUFFIX))
                self.destination.put(part, _part(shard, PART_SUFFIX))

    def finish(self) -> Totals:
        """Joins the parts to `manifest.parquet` and `failed.parquet`, and returns what is in them.

        Raises:
            UserError: some shards are not written.
        """
        missing = self.shards_to_do()
        if missing:
            raise UserError(
                f"{self.destination.address} lacks {len(missing)} of {self.settings.num_shards} shards, number "
                f"{missing[0]} among them; start again to go on"
            )
        with self.destination.working_folder() as folder:
            failed, manifest = folder / FAILED, folder / MANIFEST
            _write_table(failed, failed_schema(), self._parts(FAILED_SUFFIX), ROWS_OF_SET)
            _write_table(manifest, clip_schema(), self._parts(PART_SUFFIX), ROWS_OF_SET)
            totals = self._totals(failed, manifest)
            self.destination.put(failed, FAILED)
            self.destination.put(manifest, MANIFEST)
        # A worker that was killed may have been at a shard that another run has ended.
        for name in self.destination.names("parts"):
            if name.endswith(ATTEMPTS_SUFFIX):
                self.destination.remove(f"parts/{name}")
        return totals

    def has_summary(self) -> bool:
        """Says if a run has written a summary."""
        return self.destination.exists(SUMMARY)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Writes plain values about the run that wrote the set last."""
        with self.destination.working_folder() as folder:
            file = folder / SUMMARY
            file.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
            self.destination.put(file, SUMMARY)

    def _totals(self, failed: pathlib.Path, manifest: pathlib.Path) -> Totals:
        import pyarrow.compute
        import pyarrow.parquet

        sums, reasons, joules = collections.Counter(), collections.Counter(), []
        ratios: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
        summed = ("passes", "duration_seconds", "separation_seconds")
        for batch in pyarrow.parquet.ParquetFile(manifest).iter_batches(
            columns=[*summed, "reasons", "separation_joules", "kind", "sources", *SNR]
        ):
            sums.update({name: pyarrow.compute.sum(batch[name]).as_py() for name in summed})
            reasons.update(batch["reasons"].flatten().to_pylist())
            joules.append(pyarrow.compute.sum(batch["separation_joules"]).as_py())
            stems = pyarrow.Table.from_batches([batch]).filter(pyarrow.compute.field("kind") == "stem")
            stems = stems.append_column("source", pyarrow.compute.list_element(stems["sources"], 0))
            found = stems.group_by("source").aggregate([(name, how) for name in SNR for how in ("sum", "count")])
            for row in found.to_pylist():
                ratios[row.pop("source")].update({name: value or 0 for name, value in row.items()})
        measured = [value for value in joules if value is not None]
        has_clips = pyarrow.parquet.read_table(failed, columns=["num_clips"])["num_clips"].to_numpy() > 0
        return Totals(
            num_songs=self.settings.num_songs,
            num_failed=int(np.sum(~has_clips)),
            num_partial=int(np.sum(has_clips)),
            num_clips=pyarrow.parquet.read_metadata(manifest).num_rows,
            num_passing=sums["passes"],
            clip_seconds=float(sums["duration_seconds"]),
            reasons=dict(sorted(reasons.items())),
            snr_db={
                source: tuple(
                    found[f"{name}_sum"] / found[f"{name}_count"] if found[f"{name}_count"] else None for name in SNR
                )
                for source, found in sorted(ratios.items())
            },
            separation_seconds=float(sums["separation_seconds"]),
            separation_joules=sum(measured) if measured else None,
        )

    def _rows(
        self,
        shard: int,
        clips: Iterable[tuple[Mapping[str, Any], np.ndarray]],
        stage: pathlib.Path,
        num_threads: int,
    ) -> Iterator["pyarrow.Table"]:
        """Writes the audio of clips below a folder, and yields the whole row of each."""
        audio_format, seen = self.settings.audio_format, set()

        def encoded(clip: tuple[Mapping[str, Any], np.ndarray]) -> tuple[Mapping[str, Any], np.ndarray, bytes, int]:
            given, samples = clip
            return given, samples, *encode_clip(samples, given["sample_rate"], audio_format)

        with contextlib.ExitStack() as stack:
            tar = None
            for index, (given, samples, audio, sample_rate) in enumerate(run_ahead(encoded, clips, num_threads)):
                _check_id(given["id"], given["song_id"], seen)
                is_plain = self.settings.layout == "folder"
                # Readers of shards take all behind a name's first dot for its suffix, and ids may hold dots.
                key = given["id"] if is_plain else f"{shard:05d}-{index:05d}"
                file = f"audio/{key}.{audio_format}" if is_plain else f"data/shard-{shard:05d}.tar"
                filled = {
                    "sample_rate": sample_rate,
                    "num_channels": samples.shape[1],
                    "shard": shard,
                    "file": file,
                    "member": None if is_plain else f"{key}.{audio_format}",
                    "sha256": hashlib.sha256(audio).hexdigest(),
                }
                table = _table([{**given, **filled}], clip_schema())
                (stage / file).parent.mkdir(parents=True, exist_ok=True)
                caption = given["caption"].encode()
                if is_plain:
                    (stage / file).write_bytes(audio)
                    (stage / f"audio/{key}.txt").write_bytes(caption)
                else:
                    tar = tar or stack.enter_context(tarfile.open(stage / file, "w"))
                    beside = table.select(names_beside_audio()).to_pylist()[0]
                    text = json.dumps(beside, ensure_ascii=False, allow_nan=False).encode()
                    for suffix, content in ((audio_format, audio), ("json", text), ("txt", caption)):
                        # The times and owners of such members are all zero.
                        member = tarfile.TarInfo(f"{key}.{suffix}")
                        member.size = len(content)
                        tar.addfile(member, io.BytesIO(content))
                yield table

    def _parts(self, suffix: str) -> Iterator["pyarrow.Table"]:
        import pyarrow.parquet

        for shard in range(self.settings.num_shards):
            with self.destination.open(_part(shard, suffix)) as file:
                # A thread of Arrow's may let go of a Python file only when Python has ended: the process aborts.
                yield pyarrow.parquet.ParquetFile(file).read(use_threads=False)


def _check_settings(destination: Destination, settings: StemSetSettings) -> None:
    with destination.open(SETTINGS) as file:
        content = file.read()
    try:
        old = dict(json.loads(content))
    except (TypeError, ValueError) as error:
        raise UserError(f"{destination.address_of(SETTINGS)} is damaged; give another folder") from error
    new = dataclasses.asdict(settings)
    differing = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    if differing:
        pairs = "; ".join(f"{name} was {old.get(name)!r} and is {new.get(name)!r}" for name in differing)
        raise UserError(f"{destination.address} was made with other settings ({pairs}); take those, or another folder")


def _part(shard: int, suffix: str) -> str:
    return f"parts/shard-{shard:05d}{suffix}"


def _check_id(clip_id: str, song_id: str, seen: set[str]) -> None:
    """Lets a clip's id stand for a file, and for one clip of the whole set."""
    check_name(clip_id, "the clip")
    if clip_id.rpartition("/")[0] != song_id or clip_id in seen:
        raise ValueError(f"the clip {clip_id!r} of the song {song_id!r} is not below it, or comes twice")
    seen.add(clip_id)


def _table(rows: list[Mapping[str, Any]], schema: "pyarrow.Schema") -> "pyarrow.Table":
    """Rows as a table, which must have all columns and no others."""
    import pyarrow as pa

    for row in rows:
        if set(row) != set(schema.names):
            raise ValueError(f"a row lacks or has too much: {set(row) ^ set(schema.names)}")
    table = pa.Table.from_pylist(rows, schema)
    empty = [field.name for field in schema if not field.nullable and table[field.name].null_count]
    if empty:
        raise ValueError(f"a row has nothing in {', '.join(empty)}")
    return table


def _write_table(
    path: pathlib.Path, schema: "pyarrow.Schema", tables: Iterable["pyarrow.Table"], num_rows: int
) -> None:
    """Writes tables as one, in groups of so many rows or some more."""
    import pyarrow as pa
    import pyarrow.parquet

    waiting = []
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for table in tables:
            waiting.append(table)
            if sum(map(len, waiting)) >= num_rows:
                writer.write_table(pa.concat_tables(waiting))
                waiting = []
        if waiting:
            writer.write_table(pa.concat_tables(waiting))
