"""A page on which a song is seen and heard as models separate it; it needs nothing beside it."""

import functools
from html import escape

import numpy as np

from sepnet.comparison.song_pictures import draw_song
from sepnet.comparison.stretch import Comparison
from sepnet.reports.pages import audio_uri, figure, page, picture_uri, players, table


def comparison_page(comparison: Comparison) -> str:
    """The whole page: errors, and for every source a picture and players of true stem, estimates and differences."""
    models = list(comparison.estimates)
    title = f"{comparison.song}: {', '.join(models)}"
    gain = 1 / _peak(comparison)
    play = functools.partial(audio_uri, sample_rate=comparison.sample_rate)
    softer = f" All sounds are {-20 * np.log10(gain):.1f} dB softer, so that none is cut." if gain < 1 else ""
    sections = [
        f"<h1>{escape(comparison.song)}</h1>",
        f"<p>{comparison.span}, taken apart by {escape(' and '.join(models))}.{softer}</p>",
        table(
            "Mean squared error of this stretch", ["", "all", *comparison.sources], comparison.error_rows(), texts=(0,)
        ),
        "<h2>mixture</h2>",
        players([("mixture", play(gain * comparison.mixture))], comparison.song),
    ]
    for source, true in comparison.sources.items():
        estimates = {name: stems[source] for name, stems in comparison.estimates.items()}
        picture = picture_uri(functools.partial(draw_song, comparison=comparison, sources=[source]))
        alternative = f"Waveforms and spectrograms of {source}: true, and of each model the estimate and its difference"
        sections += [
            f"<h2>{escape(source)}</h2>",
            figure(picture, alternative, f"{source}: one scale for all waveforms, another for all spectrograms."),
            players([("true", play(gain * true))], source),
        ]
        for name, estimate in estimates.items():
            difference = gain * (estimate - true)
            sections.append(players([(name, play(gain * estimate)), (f"{name} less true", play(difference))], source))
    return page(title, sections)


def _peak(comparison: Comparison) -> float:
    """The largest magnitude of anything that is played, 1 at least: one gain for all, so that they can be compared."""
    stems = [comparison.mixture, *comparison.sources.values()]
    for estimates in comparison.estimates.values():
        for source, estimate in estimates.items():
            stems += [estimate, estimate - comparison.sources[source]]
    return max(1.0, *(float(np.abs(stem).max()) for stem in stems))
