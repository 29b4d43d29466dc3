"""A page on which a stem set is seen and some of its clips are heard; it needs nothing beside it."""

import functools
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from sepnet.reports.canvas import make_figure, save
from sepnet.reports.pages import data_uri, figures, page, picture_uri, players, table
from sepnet.stem_sets.overview import EDGES, Overview

MEDIA_TYPES = {"flac": "audio/flac", "opus": "audio/ogg"}
LABELS = {"loudness_lufs": "loudness, LUFS", "silence": "silence, share of the time", "bleed": "bleed, estimated share"}


def preview_page(name: str, overview: Overview, audio: Mapping[str, bytes]) -> str:
    """The whole page: counts and distributions of all clips, and of a sample captions, players and scores.

    Args:
        name: of the set.
        overview: what it holds.
        audio: files of the sample's clips by their ids.
    """
    num_passing = sum(count for (_, passes), count in overview.num_clips.items() if passes)
    models = sorted({f"{row['model']} (version {row['model_version']})" for row in overview.sample})
    made_with = f" Made with {' and '.join(models)}." if models else ""
    sections = [
        f"<h1>{escape(name)}</h1>",
        f'<p class="answer">{overview.num_clips.total():,} clips, {overview.seconds / 3600:,.2f} h; '
        f"{num_passing:,} of them pass.{escape(made_with)}</p>",
        "<h2>All clips</h2>",
        table("Clips by kind", ["kind", "clips", "pass", "do not"], _kind_rows(overview.num_clips), texts=(0,)),
    ]
    if overview.reasons:
        rows = [(reason, f"{count:,}") for reason, count in sorted(overview.reasons.items())]
        sections.append(
            table("Clips that do not pass; some for several reasons", ["reason", "clips"], rows, texts=(0,))
        )
    pictures = [_distribution(overview, name) for name in EDGES]
    sections += [figures(pictures), f"<h2>{len(overview.sample)} of them, chosen by chance</h2>"]
    sections += [_clip(row, audio[row["id"]]) for row in overview.sample]
    return page(name, sections)


def _kind_rows(num_clips: Mapping[tuple[str, bool], int]) -> list[tuple[str, ...]]:
    kinds = sorted({kind for kind, _ in num_clips})
    counts = [(kind, num_clips[kind, True], num_clips[kind, False]) for kind in kinds]
    return [(kind, f"{passing + failing:,}", f"{passing:,}", f"{failing:,}") for kind, passing, failing in counts]


def _distribution(overview: Overview, name: str) -> tuple[str, str, str]:
    """A picture of a distribution as a data: URI, its description and its caption."""
    counts = overview.histograms[name]
    picture = picture_uri(functools.partial(_draw, counts=counts, edges=EDGES[name], label=LABELS[name]))
    caption = f"{LABELS[name]}: {counts.sum():,} clips"
    if overview.num_unknown[name]:
        caption += f", and {overview.num_unknown[name]:,} for which it is not known"
    return picture, f"Histogram of {LABELS[name]}: clips that pass, and above them those that do not", caption


def _draw(target: io.BytesIO, counts: np.ndarray, edges: np.ndarray, label: str) -> None:
    failing, passing = counts
    figure = make_figure(4, 2.8, dpi=160)
    axes = figure.subplots()
    axes.stairs(passing, edges, fill=True, color="C0", label="pass")
    axes.stairs(passing + failing, edges, baseline=passing, fill=True, color="C1", label="do not pass")
    axes.set(xlabel=label, ylabel="clips", xlim=(edges[0], edges[-1]))
    axes.set_ylim(0, max(1.05 * counts.sum(axis=0).max(), 1))
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=2, fontsize="small")
    save(figure, target)


def _clip(row: Mapping[str, Any], content: bytes) -> str:
    """A clip: caption, where it is from, player, scores."""
    place = _place(row["song_id"], row["start_seconds"], row["sources"])
    if row["other_song_id"] is not None:
        place += f" + {_place(row['other_song_id'], row['other_start_seconds'], row['other_sources'])}"
    suffix = (row["member"] or row["file"]).rpartition(".")[2]
    player = players([(place, data_uri(content, MEDIA_TYPES[suffix]))], row["caption"])
    verdict = "passes" if row["passes"] else f"does not pass: {', '.join(row['reasons'])}"
    scores = [
        f"{row['kind']}, {row['duration_seconds']:.1f} s",
        "loudness unknown" if row["loudness_lufs"] is None else f"{row['loudness_lufs']:.1f} LUFS",
        f"silence {row['silence']:.2f}",
        "bleed unknown" if row["bleed"] is None else f"bleed {row['bleed']:.2f}",
        f"clipping {row['clipping']:.4f}",
        f"gain {row['gain_db']:.1f} dB",
    ]
    return (
        f"<h3>{escape(row['caption'])}</h3>{player}"
        f'<p class="note">{escape(" · ".join(scores))} · <strong>{escape(verdict)}</strong></p>'
    )


def _place(song_id: str, start_seconds: float, sources: Sequence[str]) -> str:
    minutes, seconds = divmod(round(start_seconds), 60)
    return f"{song_id} from {minutes}:{seconds:02}, {', '.join(sources)}"
