"""Tables of what an evaluation found."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.markup import escape

from sepnet.evaluation.aggregates import AGGREGATES, HEADLINE, WHOLE_SONGS, mean_over_sources
from sepnet.evaluation.bss_eval import METRICS
from sepnet.evaluation.published import SOURCES, read_published

Figures = Mapping[str, Mapping[str, Any]]


def print_whole_songs(figures: Figures, sources: Sequence[str], title: str) -> None:
    """Prints errors and ratios of whole songs, a row for each method of `sepnet.evaluation.aggregates.summarise`."""
    table = _table(f"mean squared error, and ratios in dB: {title}", ["", "all", *sources, "SI-SDR", "SDR"])
    for name, row in figures.items():
        errors = (f"{row[key]:.5f}" for key in ("mse", *(f"mse_{source}" for source in sources)))
        table.add_row(escape(name), *errors, _decibels(row["si_sdr"], 1), _decibels(row["sdr"], 1))
    _print(table)
    print(f"errors: {WHOLE_SONGS['mse']}")
    print(f"SI-SDR and SDR: {WHOLE_SONGS['sdr']}\n")


def print_museval(figures: Figures, sources: Sequence[str]) -> None:
    """Prints the four metrics by the aggregate that the field quotes, and the SDR by all of them."""
    measured = {name: row["museval"] for name, row in figures.items() if "museval" in row}
    headings = ["", "", "mean", *sources]
    table = _table(f"museval's BSSEval v4 in dB, {_spoken(HEADLINE)}", headings, text_columns=2)
    for name, aggregates in measured.items():
        for metric in METRICS:
            shown = (_decibels(aggregates[HEADLINE][metric][key]) for key in ("all", *sources))
            table.add_row(
                escape(name) if metric == METRICS[0] else "", metric, *shown, end_section=metric == METRICS[-1]
            )
    _print(table)
    table = _table("museval's SDR in dB, by every aggregate", headings, text_columns=2)
    for name, aggregates in measured.items():
        for place, aggregate in enumerate(AGGREGATES):
            shown = (_decibels(aggregates[aggregate]["SDR"][key]) for key in ("all", *sources))
            last = place == len(AGGREGATES) - 1
            table.add_row("" if place else escape(name), _spoken(aggregate), *shown, end_section=last)
    _print(table)
    for aggregate, meaning in AGGREGATES.items():
        print(f"{_spoken(aggregate)}: {meaning}")


def print_comparison(figures: Figures, sources: Sequence[str], caution: str) -> None:
    """Prints the SDR of methods that museval has measured between published ones, and where these are from.

    Args:
        figures: what `sepnet.evaluation.aggregates.summarise` gives.
        sources: names of the sources.
        caution: why these cannot be compared; empty if they can.
    """
    systems = read_published()["systems"]
    is_usual = set(sources) == SOURCES
    origins = list(dict.fromkeys(system["source"] for system in systems))
    rows = [
        (
            system["name"],
            system["trained_on"],
            system.get("sdr", {}),
            system["mean"] if is_usual and "mean" in system else _published_mean(system, sources),
            str(origins.index(system["source"]) + 1),
        )
        for system in systems
    ]
    for name, row in figures.items():
        sdr = row["museval"][HEADLINE]["SDR"]
        rows.append((name, "", sdr, sdr["all"], "here"))
    table = _table("SDR in dB beside published figures", ["", "trained on", "mean", *sources, "from"], 2)
    for name, trained, sdr, mean, origin in sorted(rows, key=lambda row: (row[3] is None, row[3] or 0)):
        shown = (_decibels(sdr.get(source)) for source in sources)
        table.add_row(escape(name), trained, _decibels(mean), *shown, origin, style="bold" if origin == "here" else "")
    _print(table)
    for line in _origin_lines(systems, origins):
        print(line)
    if caution:
        print(f"Not to be compared: {caution}.")


def _published_mean(system: Mapping[str, Any], sources: Sequence[str]) -> float | None:
    return mean_over_sources({source: system.get("sdr", {}).get(source) for source in sources})


def _origin_lines(systems: Sequence[Mapping[str, Any]], origins: Sequence[str]) -> Iterable[str]:
    for number, origin in enumerate(origins, start=1):
        aggregates = {system["aggregate"] for system in systems if system["source"] == origin}
        said = " and ".join(_spoken(name) if name else "aggregate not said there" for name in aggregates)
        yield f"{number}: {said}; {origin}"


def _spoken(aggregate: str) -> str:
    return aggregate.replace("_", " ")


def _table(title: str, headings: Sequence[str], text_columns: int = 1):
    from rich import box
    from rich.table import Table

    table = Table(title=escape(title), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(escape(heading), justify="left" if place < text_columns else "right", overflow="fold")
    return table


def _print(table) -> None:
    from rich.console import Console

    Console().print(table)
    print()


def _decibels(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
