"""The figures of an evaluation as tables on the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.tables import print_table
from sepnet.evaluation.aggregates import AGGREGATES, HEADLINE, WHOLE_SONGS, mean_over_sources
from sepnet.evaluation.bss_eval import METRICS
from sepnet.evaluation.published import MUSDB_SOURCES, read_published
from sepnet.evaluation.speech import DIGITS
from sepnet.evaluation.speech import METRICS as SPEECH_METRICS

Figures = Mapping[str, Mapping[str, Any]]


def print_whole_songs(figures: Figures, sources: Sequence[str], title: str) -> None:
    """Prints errors and ratios of whole songs, a row for each method of `sepnet.evaluation.aggregates.summarise`."""
    rows = [
        (
            name,
            *(f"{row[key]:.5f}" for key in ("mse", *(f"mse_{source}" for source in sources))),
            _shown(row["si_sdr"], 1),
            _shown(row["sdr"], 1),
        )
        for name, row in figures.items()
    ]
    title = f"mean squared error, and ratios in dB: {title}"
    print_table(("", "all", *sources, "SI-SDR", "SDR"), rows, title=title, boxed=False)
    print(f"errors: {WHOLE_SONGS['mse']}")
    print(f"SI-SDR and SDR: {WHOLE_SONGS['sdr']}\n")


def print_speech(figures: Figures) -> None:
    """Prints SI-SDR, PESQ and STOI of each source of speech, what they mean, and how many excerpts have no figure."""
    speech = {name: row["speech"] for name, row in figures.items() if "speech" in row}
    for source, first in next(iter(speech.values())).items():
        metrics = list(first["missing"])
        rows, left_out = [], {}
        for name, row in speech.items():
            values = (_shown(row[source][metric], DIGITS[metric]) for metric in metrics)
            rows.append((name, _shown(figures[name][f"si_sdr_{source}"], 1), *values))
            for metric, missing in row[source]["missing"].items():
                left_out.setdefault((metric, missing), []).append(name)
        headings = ("", "SI-SDR", *(SPEECH_METRICS[metric] for metric in metrics))
        print_table(headings, rows, title=f"SI-SDR in dB, PESQ and STOI of {source}", boxed=False)
        for (metric, missing), names in left_out.items():
            if missing:
                print(
                    f"left out of {SPEECH_METRICS[metric]} of {', '.join(names)}: {missing} of {first['excerpts']} "
                    "excerpts, without enough speech in the stem or sound in the estimate"
                )
    for metric in metrics:
        print(f"{SPEECH_METRICS[metric]}: {WHOLE_SONGS[metric]}")
    print("mixture/num_sources is the noisy input: none of these figures depends on its level\n")


def print_museval(figures: Figures, sources: Sequence[str]) -> None:
    """Prints the four metrics by the aggregate that the field quotes, and the SDR by all of them."""
    measured = {name: row["museval"] for name, row in figures.items() if "museval" in row}
    headings, keys = ("", "", "mean", *sources), ("all", *sources)
    by_metric = [
        ("" if place else name, metric, *(_shown(aggregates[HEADLINE][metric][key]) for key in keys))
        for name, aggregates in measured.items()
        for place, metric in enumerate(METRICS)
    ]
    by_aggregate = [
        ("" if place else name, _spoken(aggregate), *(_shown(aggregates[aggregate]["SDR"][key]) for key in keys))
        for name, aggregates in measured.items()
        for place, aggregate in enumerate(AGGREGATES)
    ]
    for title, rows, section_rows in (
        (f"museval's BSSEval v4 in dB, {_spoken(HEADLINE)}", by_metric, len(METRICS)),
        ("museval's SDR in dB, by every aggregate", by_aggregate, len(AGGREGATES)),
    ):
        print_table(headings, rows, title=title, texts=(0, 1), boxed=False, section_rows=section_rows)
    for aggregate, meaning in AGGREGATES.items():
        print(f"{_spoken(aggregate)}: {meaning}")


def print_comparison(figures: Figures, sources: Sequence[str], caution: str) -> None:
    """Prints the SDR of methods that museval has measured between published ones, and where these are from.

    `caution` says why the two cannot be compared; it is empty if they can.
    """
    systems = read_published()["systems"]
    is_usual = set(sources) == MUSDB_SOURCES
    origins = list(dict.fromkeys(system["source"] for system in systems))
    rows = []
    for system in systems:
        sdr = system.get("sdr", {})
        mean = mean_over_sources({source: sdr.get(source) for source in sources})
        if is_usual and "mean" in system:
            mean = system["mean"]
        rows.append((system["name"], system["trained_on"], sdr, mean, str(origins.index(system["source"]) + 1)))
    for name, row in figures.items():
        sdr = row["museval"][HEADLINE]["SDR"]
        rows.append((name, "", sdr, sdr["all"], "here"))
    rows.sort(key=lambda row: (row[3] is None, row[3] or 0))
    cells = [
        (name, trained_on, _shown(mean), *(_shown(sdr.get(source)) for source in sources), origin)
        for name, trained_on, sdr, mean, origin in rows
    ]
    print_table(
        ("", "trained on", "mean", *sources, "from"),
        cells,
        title="SDR in dB beside published figures",
        texts=(0, 1),
        boxed=False,
        bold_rows=[place for place, row in enumerate(rows) if row[-1] == "here"],
    )
    for number, origin in enumerate(origins, start=1):
        aggregates = {system["aggregate"] for system in systems if system["source"] == origin}
        said = " and ".join(_spoken(name) if name else "aggregate not said there" for name in aggregates)
        print(f"{number}: {said}; {origin}")
    if caution:
        print(f"Not to be compared: {caution}.")


def _spoken(aggregate: str) -> str:
    return aggregate.replace("_", " ")


def _shown(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
