"""Published figures on MUSDB18's test songs, each with its source, and whether an evaluation may stand beside them."""

import functools
import importlib.resources
import json
from collections.abc import Iterable, Sequence
from typing import Any

from pipelines.songs.layouts import Track

MUSDB_SAMPLE_RATE = 44_100
MUSDB_SOURCES = {"vocals", "drums", "bass", "other"}


@functools.cache
def read_published() -> dict[str, Any]:
    """Reads `published.json`.

    `test_songs`: the seconds that museval measures of each of MUSDB18's 50 test songs. `systems`: each with its `name`,
    what it was `trained_on`, `sdr` by source or only the `mean` of the four, the `aggregate` by which songs became one
    figure (None: the source does not say), the medians of the `songs` where SiSEC's files have them, and the `source`.
    The figures of SiSEC's submissions were computed from its files.
    """
    return json.loads((importlib.resources.files("sepnet.evaluation") / "published.json").read_text(encoding="utf-8"))


def why_not_comparable(tracks: Sequence[Track], sources: Iterable[str]) -> str:
    """Returns the reason that figures of these songs cannot be compared with published ones; empty if they can."""
    expected = read_published()["test_songs"]
    if {track.name for track in tracks} != set(expected):
        return f"these are not the {len(expected)} test songs of MUSDB18"
    if set(sources) != MUSDB_SOURCES:
        return f"these are not MUSDB18's sources ({', '.join(sorted(MUSDB_SOURCES))})"
    if {track.sample_rate for track in tracks} != {MUSDB_SAMPLE_RATE}:
        return f"these songs do not have MUSDB18's {MUSDB_SAMPLE_RATE} Hz"
    cut = [track.name for track in tracks if abs(track.num_samples // MUSDB_SAMPLE_RATE - expected[track.name]) > 1]
    if cut:
        return f"{len(cut)} of these songs have not the length that they have in MUSDB18, {cut[0]!r} among them"
    return ""
