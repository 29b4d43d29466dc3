"""PNG pictures: the losses of runs, and spectrograms of a song's true and estimated stems."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from sepnet.reports.canvas import drawn, make_figure, save

# Of a spectrogram, what lies this far below its loudest point is black.
DYNAMIC_RANGE_DB = 80
FRAME_LENGTH, FRAME_STEP = 1024, 256
BASELINE_STYLES = ("--", ":")


def draw_losses(path: pathlib.Path, history: Mapping[str, Sequence[float]], baselines: Mapping[str, float]) -> None:
    """Draws the "mse" and "val_mse" of a history by epoch, with the `val_mse` of each baseline as a line across.

    Not the loss, which may be something else than a squared error.
    """
    figure = make_figure(8, 4.5)
    axes = figure.subplots()
    axes.plot(_epochs(history["mse"]), history["mse"], color="0.6", label="mse in training")
    axes.plot(_epochs(history["val_mse"]), history["val_mse"], color="C0", marker="o", markersize=3, label="val_mse")
    _finish_losses(figure, axes, baselines, "mean squared error")
    save(figure, path)


def draw_runs(path: pathlib.Path, histories: Mapping[str, Sequence[float]], baselines: Mapping[str, float]) -> None:
    """Draws `val_mse` by epoch of several runs, by their labels, with that of each baseline as a line across."""
    figure = make_figure(8, 5)
    axes = figure.subplots()
    for label, values in histories.items():
        axes.plot(_epochs(values), values, marker="o", markersize=3, label=drawn(label))
    _finish_losses(figure, axes, baselines, "val_mse")
    save(figure, path)


def draw_separation(
    path: pathlib.Path,
    mixture: np.ndarray,
    sources: Mapping[str, np.ndarray],
    estimates: Mapping[str, np.ndarray],
    sample_rate: int,
) -> None:
    """Draws spectrograms of a mixture and, below each other, of every true source beside its estimate."""
    figure = make_figure(10, 2 * (1 + len(sources)))
    grid = figure.add_gridspec(1 + len(sources), 2)
    loudest_db = loudest_level_db(mixture)

    def spectrogram(place, audio: np.ndarray, title: str):
        axes = figure.add_subplot(place)
        draw_spectrogram(axes, audio, sample_rate, loudest_db)
        axes.set_title(drawn(title), fontsize="small", loc="left")
        axes.set(xlabel="seconds", ylabel="kHz")
        return axes

    spectrogram(grid[0, :], mixture, "mixture")
    for row, (name, source) in enumerate(sources.items(), start=1):
        error = float(np.mean((source - estimates[name]) ** 2))
        pair = (source, f"{name}, true"), (estimates[name], f"{name}, estimate: MSE {error:.5f}")
        for column, (audio, title) in enumerate(pair):
            # Ticks and labels take most of the time of drawing.
            spectrogram(grid[row, column], audio, title).label_outer(remove_inner_ticks=True)
    save(figure, path)


def draw_spectrogram(axes, audio: np.ndarray, sample_rate: int, loudest_db: float) -> None:
    """Draws the levels of the mean of the channels, by seconds and kHz; `loudest_db` is the level of the brightest."""
    extent = (0, len(audio) / sample_rate, 0, sample_rate / 2000)
    limits = {"vmin": loudest_db - DYNAMIC_RANGE_DB, "vmax": loudest_db}
    levels = _level_db(audio.mean(axis=1))
    axes.imshow(levels, origin="lower", aspect="auto", extent=extent, cmap="magma", **limits)


def loudest_level_db(audio: np.ndarray) -> float:
    """The level of the loudest point of a spectrogram."""
    return float(_level_db(audio.mean(axis=1)).max())


def _epochs(values: Sequence[float]) -> np.ndarray:
    return np.arange(1, len(values) + 1)


def _finish_losses(figure, axes, baselines: Mapping[str, float], ylabel: str) -> None:
    for (name, value), style in zip(baselines.items(), BASELINE_STYLES, strict=False):
        axes.axhline(value, color="black", linestyle=style, linewidth=1, label=drawn(name))
    axes.set(xlabel="epoch", ylabel=ylabel, yscale="log")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3, which="both")
    figure.legend(loc="outside upper center", ncols=4, fontsize="small")


def _level_db(signal: np.ndarray) -> np.ndarray:
    """Levels `[num_bins, num_frames]` in dB of a mono signal."""
    signal = np.pad(signal, (0, max(FRAME_LENGTH - len(signal), 0)))
    frames = np.lib.stride_tricks.sliding_window_view(signal, FRAME_LENGTH)[::FRAME_STEP] * np.hanning(FRAME_LENGTH)
    return 20 * np.log10(np.abs(np.fft.rfft(frames)).T + 1e-6)
