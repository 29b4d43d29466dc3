"""The picture of an evaluation beside published figures."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sepnet.evaluation.aggregates import HEADLINE
from sepnet.evaluation.published import read_published
from sepnet.reports.canvas import drawn, make_figure, save

# The worst songs lie far below; where an axis begins.
LOWEST_DB = -6.0


def draw_comparison(
    path: pathlib.Path, figures: Mapping[str, Mapping[str, Any]], sources: Sequence[str], caution: str
) -> None:
    """Draws the SDR of methods and of published systems: a box over songs where these are known, else the one figure.

    `caution` says why the two cannot be compared; it is empty if they can.
    """
    systems = [
        *read_published()["systems"],
        *(
            {"name": name, "sdr": row["museval"][HEADLINE]["SDR"], "songs": row["song_medians"]}
            for name, row in figures.items()
        ),
    ]
    systems = [system for system in systems if set(sources) & set(system.get("sdr", {}))]
    systems.sort(key=lambda system: _mean(system, sources))
    figure = make_figure(2.4 + 2.7 * len(sources), 1.3 + 0.32 * len(systems))
    fields = figure.subplots(1, len(sources), sharey=True, squeeze=False)[0]
    for axes, source in zip(fields, sources, strict=True):
        for place, system in enumerate(systems):
            _draw_system(axes, place, system, source, "C3" if system["name"] in figures else "0.35")
        axes.set_title(drawn(source), fontsize="medium")
        axes.set_xlabel("SDR, dB")
        axes.grid(alpha=0.3, axis="x")
        axes.set_xlim(left=max(axes.get_xlim()[0], LOWEST_DB))
    fields[0].set_yticks(range(len(systems)), [drawn(system["name"]) for system in systems], fontsize="small")
    for label, system in zip(fields[0].get_yticklabels(), systems, strict=True):
        label.set_color("C3" if system["name"] in figures else "black")
    title = "Boxes: the medians over frames of each song; diamonds: one published figure; red: this evaluation."
    caution = f"\n{drawn(f'Not to be compared: {caution}.')}" if caution else ""
    figure.suptitle(f"{title}{caution}", fontsize="small")
    save(figure, path)


def _draw_system(axes, place: int, system: Mapping[str, Any], source: str, color: str) -> None:
    songs = system.get("songs", {}).get(source)
    if songs:
        line = {"color": color}
        axes.boxplot(
            [songs],
            positions=[place],
            widths=0.6,
            orientation="horizontal",
            manage_ticks=False,
            boxprops=line,
            whiskerprops=line,
            capprops=line,
            medianprops={"color": color, "linewidth": 2},
            flierprops={"marker": ".", "markersize": 3, "markeredgecolor": color},
        )
    elif system["sdr"].get(source) is not None:
        axes.plot(system["sdr"][source], place, "D", color=color, markersize=5)


def _mean(system: Mapping[str, Any], sources: Sequence[str]) -> float:
    """The figure that systems are ordered by: the mean over the sources that a system has."""
    values = [value for source in sources if (value := system["sdr"].get(source)) is not None]
    return float(np.mean(values)) if values else -np.inf
