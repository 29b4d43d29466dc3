"""Surveys a finished stem set: counts and distributions of all its clips, and a random sample of them."""

import collections
import dataclasses
import hashlib
import random
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.errors import UserError, check_packages, one_line
from sepnet.stem_sets.destination import Destination
from sepnet.stem_sets.stem_set import MANIFEST, SETTINGS

# What lies beyond the first and the last edge counts with its neighbours.
EDGES = {
    "loudness_lufs": np.linspace(-70, 5, 76),
    "silence": np.linspace(0, 1, 51),
    "bleed": np.linspace(0, 1, 51),
}
COLUMNS = (
    *("id", "song_id", "other_song_id", "start_seconds", "other_start_seconds", "duration_seconds", "kind", "sources"),
    *("other_sources", "caption", *EDGES, "clipping", "gain_db", "passes", "reasons", "file", "member", "sha256"),
    *("model", "model_version"),
)
# Enough for the headers between two clips, and little beside a clip.
BLOCK_BYTES = 1 << 16


@dataclasses.dataclass(frozen=True)
class Overview:
    """The contents of a set.

    Attributes:
        num_clips: of each kind, those that pass and those that do not: by kind and whether they pass.
        seconds: of all clips together.
        reasons: how many clips do not pass, by reason; a clip may have several.
        histograms: by the names of `EDGES`, clips between these, `[2, num_bins]`: that do not pass, and that do.
        num_unknown: by the names of `EDGES`, clips without a value.
        sample: rows of clips by chance, in the order of the manifest.
    """

    num_clips: collections.Counter[tuple[str, bool]]
    seconds: float
    reasons: collections.Counter[str]
    histograms: dict[str, np.ndarray]
    num_unknown: collections.Counter[str]
    sample: list[dict[str, Any]]


def read_overview(destination: Destination, num_sampled: int, seed: int) -> Overview:
    """Reads the manifest of a finished set, some rows at a time.

    Args:
        destination: where the set is.
        num_sampled: clips of the sample; a smaller set is taken whole.
        seed: of the sample.

    Raises:
        UserError: there is no set, or it is not finished, or cannot be read.
    """
    check_packages(["pyarrow"], "stem sets", "augment")
    import pyarrow
    import pyarrow.parquet

    if not destination.exists(SETTINGS):
        raise UserError(
            f"{destination.address} is no stem set, for it has no {SETTINGS}; give a folder that sepnet.augment wrote"
        )
    if not destination.exists(MANIFEST):
        raise UserError(
            f"{destination.address} is not finished, for it has no {MANIFEST}; start sepnet.augment with the same "
            "arguments again to go on"
        )
    with destination.open(MANIFEST) as file:
        try:
            manifest = pyarrow.parquet.ParquetFile(file)
            missing = sorted({*COLUMNS} - {*manifest.schema_arrow.names})
            if missing:
                raise pyarrow.ArrowInvalid(f"it lacks {', '.join(missing)}")
            return _overview(manifest, num_sampled, seed)
        except pyarrow.ArrowInvalid as error:
            address = destination.address_of(MANIFEST)
            raise UserError(
                f"{address} is damaged ({one_line(error)}); remove it, and start sepnet.augment again"
            ) from error


def read_audio(destination: Destination, rows: Sequence[Mapping[str, Any]]) -> dict[str, bytes]:
    """Reads the audio files of clips, of tars these alone, and returns them by the clips' ids.

    Raises:
        UserError: one is missing, or is not what was written.
    """
    by_file = collections.defaultdict(dict)
    for row in rows:
        by_file[row["file"]][row["member"]] = row
    audio = {}
    for file, wanted in by_file.items():
        if destination.exists(file):
            found = ((wanted[member], content) for member, content in _contents(destination, file, wanted))
            audio |= {
                row["id"]: content for row, content in found if hashlib.sha256(content).hexdigest() == row["sha256"]
            }
    for row in rows:
        if row["id"] not in audio:
            raise UserError(
                f"the clip {row['id']!r} is not as it was written to {destination.address_of(row['file'])}; copy the "
                "set again, or remove its shard from parts/ and start sepnet.augment again"
            )
    return audio


def _overview(manifest: Any, num_sampled: int, seed: int) -> Overview:
    """Reads an open manifest, pyarrow's `ParquetFile`."""
    import pyarrow.compute

    num_rows = manifest.metadata.num_rows
    chosen = np.sort(random.Random(seed).sample(range(num_rows), min(num_sampled, num_rows)))
    num_clips, reasons, num_unknown = collections.Counter(), collections.Counter(), collections.Counter()
    histograms = {name: np.zeros((2, len(edges) - 1), np.int64) for name, edges in EDGES.items()}
    begin, seconds, sample = 0, 0.0, []
    for batch in manifest.iter_batches(columns=list(COLUMNS)):
        passes = batch["passes"].to_numpy(zero_copy_only=False)
        num_clips.update(zip(batch["kind"].to_pylist(), passes.tolist(), strict=True))
        reasons.update(batch["reasons"].flatten().to_pylist())
        seconds += pyarrow.compute.sum(batch["duration_seconds"]).as_py()
        for name, edges in EDGES.items():
            values = batch[name].to_numpy(zero_copy_only=False)
            is_known = ~np.isnan(values)
            num_unknown[name] += int(np.sum(~is_known))
            for place in (False, True):
                known = values[is_known & (passes == place)].clip(edges[0], edges[-1])
                histograms[name][int(place)] += np.histogram(known, edges)[0]
        end = begin + batch.num_rows
        sample.extend(batch.take(chosen[(chosen >= begin) & (chosen < end)] - begin).to_pylist())
        begin = end
    return Overview(num_clips, seconds, reasons, histograms, num_unknown, sample)


def _contents(
    destination: Destination, file: str, wanted: Mapping[str | None, Any]
) -> Iterator[tuple[str | None, bytes]]:
    """Reads the wanted members of a tar, with their names; of an audio file all, with None for its name."""
    with destination.open(file, BLOCK_BYTES) as opened:
        if None in wanted:
            yield None, opened.read()
            return
        left = set(wanted)
        try:
            with tarfile.open(fileobj=opened, mode="r:") as tar:
                while left and (member := tar.next()):
                    if member.name in left and member.isfile():
                        left.remove(member.name)
                        yield member.name, tar.extractfile(member).read()
        except tarfile.TarError as error:
            address = destination.address_of(file)
            raise UserError(f"{address} is damaged, or no tar ({one_line(error)}); copy it again") from error
