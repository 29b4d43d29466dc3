"""Prints the findings of `pipelines.check`: tables for people, one JSON document for programs."""

import dataclasses
import json
import pathlib
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.tables import print_table

if TYPE_CHECKING:
    from pipelines.songs.inspection import Report, SongReport

SPLITS = ("train", "valid", "test")


def print_document(report: "Report", path: pathlib.Path, stems: Sequence[str]) -> None:
    """Prints everything that was found as JSON."""
    document = {
        "path": str(path),
        "sources": list(stems),
        "is_good": report.is_good,
        "validation": report.validation,
        "problems": report.problems,
        "suggestions": report.suggestions,
        "splits": {name: _summary(songs) for name, songs in _groups(report.songs).items()},
        "songs": [dataclasses.asdict(song) for song in report.songs],
    }
    print(json.dumps(document, indent=2, ensure_ascii=False))


def print_tables(report: "Report", path: pathlib.Path, *, show_all: bool) -> None:
    """Prints a table of the splits, one of the songs that need attention, and what to do."""
    if report.songs:
        plural = f"{report.noun.capitalize()}s"
        headings = ("Split", plural, "Length", "Hz", "Ch.", "Format", "Residual*", "Worst*")
        summaries = {name: _summary(songs) for name, songs in _groups(report.songs).items()}
        rows = [_split_row(split, summary) for split, summary in summaries.items()]
        print_table(headings, rows, title=f"{plural} under {path}", texts=(0, 5), folded=range(1, len(headings)))
        worst = [f"{each['worst_song']} ({split})" for split, each in summaries.items() if each["worst_song"]]
        if worst:
            print("* mixture less sum of sources, power against the mixture's: median and worst")
            print(f"Worst: {', '.join(worst)}")
        print(f"Validation {report.noun}s: {report.validation}")
    listed = [song for song in report.songs if show_all or song.problems or song.notes]
    if listed:
        title = f"All {report.noun}s" if show_all else f"{plural} to look at"
        rows = [(song.split, song.name, _findings(song)) for song in listed]
        print_table(("Split", report.noun.capitalize(), "Findings"), rows, title=title, texts=(0, 1, 2))
    for problem in report.problems:
        print(f"Problem: {problem}")
    for suggestion in report.suggestions:
        print(f"To do: {suggestion}")
    bad = sum(bool(song.problems) for song in report.songs)
    if report.is_good:
        print(f"{len(report.songs)} {report.noun}s, nothing wrong")
    elif report.songs:
        print(f"{bad} of {len(report.songs)} {report.noun}s have problems")


def _groups(songs: Sequence["SongReport"]) -> dict[str, list["SongReport"]]:
    """The songs of each split, or the recordings of each split and source."""
    names = [f"{split} {source}".strip() for split in SPLITS for source in dict.fromkeys(song.source for song in songs)]
    groups = {name: [] for name in names or SPLITS}
    for song in songs:
        groups[f"{song.split} {song.source}".strip()].append(song)
    return groups


def _summary(chosen: Sequence["SongReport"]) -> dict:
    residuals = {song.name: song.residual_db for song in chosen if song.residual_db is not None}
    worst = max(residuals, key=residuals.get) if residuals else None
    return {
        "songs": len(chosen),
        "seconds": sum(song.seconds for song in chosen),
        "sample_rates": sorted({rate for song in chosen for rate in song.sample_rates}),
        "num_channels": sorted({number for song in chosen for number in song.num_channels}),
        "formats": sorted({name for song in chosen for name in song.formats}),
        "residual_db_median": statistics.median(residuals.values()) if residuals else None,
        "residual_db_worst": residuals.get(worst),
        "worst_song": worst,
    }


def _split_row(split: str, summary: dict) -> list[str]:
    joined = ["\n".join(map(str, summary[key])) or "-" for key in ("sample_rates", "num_channels", "formats")]
    residuals = [summary[key] for key in ("residual_db_median", "residual_db_worst")]
    shown = ["-" if residual is None else f"{residual:.1f} dB" for residual in residuals]
    return [split, str(summary["songs"]), _duration(summary["seconds"]), *joined, *shown]


def _findings(song: "SongReport") -> str:
    lines = [*song.problems, *(f"note: {note}" for note in song.notes)]
    if song.residual_db is not None:
        lines.append(f"{_duration(song.seconds)}, residual {song.residual_db:.1f} dB")
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
