"""Pictures of models on a song: waveforms and spectrograms of true stems, estimates and differences."""

import io
import pathlib
from collections.abc import Sequence

import numpy as np

from sepnet.comparison.stretch import Comparison
from sepnet.reports.pictures import draw_spectrogram, drawn, loudest_level_db, make_figure, save

# A waveform is drawn as the range of the samples in so many steps of time.
NUM_STEPS = 800
# A longer name would run into the next column.
MOST_LETTERS = 28


def draw_song(target: pathlib.Path | io.BytesIO, comparison: Comparison, sources: Sequence[str] | None = None) -> None:
    """Draws each source in two rows, waveform and spectrogram: true, then each model's estimate and its difference.

    All spectrograms have one scale, and all waveforms of a source another. Without a choice of sources all are drawn,
    and the mixture above them.
    """
    chosen = list(comparison.sources) if sources is None else list(sources)
    with_mixture = sources is None
    num_columns, num_rows = 1 + 2 * len(comparison.estimates), 2 * (len(chosen) + with_mixture)
    figure = make_figure(max(2.3 * num_columns, 8), 1.3 * num_rows + 0.3, dpi=110)
    grid = figure.add_gridspec(num_rows, num_columns)
    loudest_db = loudest_level_db(comparison.mixture)

    def draw(row: int, column: int | slice, audio: np.ndarray, title: str, peak: float) -> None:
        first = column in (0, slice(None))
        wave, spectrum = (figure.add_subplot(grid[row + below, column]) for below in (0, 1))
        _draw_waveform(wave, audio, comparison.sample_rate, peak)
        wave.set_title(title, fontsize="small", loc="left")
        draw_spectrogram(spectrum, audio, comparison.sample_rate, loudest_db)
        wave.tick_params(labelbottom=False, labelleft=first)
        spectrum.tick_params(labelsize="x-small", labelbottom=row + 2 == num_rows, labelleft=first)
        if first:
            spectrum.set_ylabel("kHz", fontsize="small")
        if row + 2 == num_rows:
            spectrum.set_xlabel("seconds", fontsize="small")

    if with_mixture:
        title = f"{drawn(comparison.song)}, {comparison.span}: mixture"
        draw(0, slice(None), comparison.mixture, title, _peak([comparison.mixture]))
    for place, source in enumerate(chosen):
        row, true = 2 * (place + with_mixture), comparison.sources[source]
        estimates = {name: stems[source] for name, stems in comparison.estimates.items()}
        peak = _peak([true, *estimates.values()])
        draw(row, 0, true, f"{drawn(source)}, true", peak)
        for number, (name, estimate) in enumerate(estimates.items()):
            error = float(np.mean((estimate - true) ** 2))
            short = drawn(_shortened(name))
            draw(row, 1 + 2 * number, estimate, f"{short}\nMSE {error:.5f}", peak)
            draw(row, 2 + 2 * number, estimate - true, f"{short}\nless true", peak)
    save(figure, target)


def _draw_waveform(axes, audio: np.ndarray, sample_rate: int, peak: float) -> None:
    edges = np.linspace(0, len(audio), min(NUM_STEPS, len(audio)) + 1).astype(int)
    lows = np.minimum.reduceat(audio.min(axis=1), edges[:-1])
    highs = np.maximum.reduceat(audio.max(axis=1), edges[:-1])
    axes.fill_between(edges[:-1] / sample_rate, lows, highs, color="C0", linewidth=0.3)
    axes.set(xlim=(0, len(audio) / sample_rate), ylim=(-peak, peak))
    axes.tick_params(labelsize="x-small")


def _shortened(name: str) -> str:
    """A name whose middle is left out if it is long: models often differ at the end of their names."""
    half = MOST_LETTERS // 2
    return name if len(name) <= MOST_LETTERS else f"{name[:half]}…{name[-half:]}"


def _peak(signals: Sequence[np.ndarray]) -> float:
    """The largest magnitude, and something to scale by where all are silent."""
    return max(*(float(np.abs(signal).max()) for signal in signals), 1e-3)
