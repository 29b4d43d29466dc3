"""museval's BSSEval v4 figures of one song, and the file that museval writes of them."""

import functools
import importlib
import sys
import types
from collections.abc import Mapping

import numpy as np

from pipelines.errors import check_packages

METRICS = ("SDR", "SIR", "SAR", "ISR")
FRAME_SECONDS = 1
# What museval needs, by the names under which they are imported.
NEEDED_PACKAGES = ("museval", "scipy", "threadpoolctl")


def check_installed() -> None:
    """Raises a `UserError` unless what museval needs is installed."""
    check_packages(NEEDED_PACKAGES, "museval's figures, which --quick leaves out", "evaluate")


def frame_scores(
    sources: Mapping[str, np.ndarray], estimates: Mapping[str, np.ndarray], sample_rate: int
) -> tuple[dict[str, dict[str, list[float]]], dict[str, str]]:
    """SDR, SIR, SAR and ISR of every second of a song, as `museval.evaluate` gives them.

    One filter of 512 taps for the whole song, frames of 1 s side by side, no permutation. A source without any sound is
    no reference: museval refuses it, so it is left out, and the others are measured without it.

    Returns:
        Figures in dB, in order of time, by source and metric, NaN where a stem is silent for a second; and why sources
        have none, by the source.

    Reference: Stöter, Liutkus, Ito 2018, "The 2018 Signal Separation Evaluation Campaign".
    """
    from threadpoolctl import threadpool_limits

    left_out = {source: "no sound in the true stem" for source, stem in sources.items() if _is_silent(stem)}
    measured = [source for source in sources if source not in left_out]
    silent = [source for source in measured if _is_silent(estimates[source])]
    if silent:
        reason = f"no sound in the estimate of {' and '.join(silent)}, which museval refuses"
    elif len(measured) < 2:
        reason = "BSSEval needs two sources that are heard"
    else:
        stems = [np.stack([group[source] for source in measured]).astype(np.float64) for group in (sources, estimates)]
        frame_samples = FRAME_SECONDS * sample_rate
        # What is divided by zero becomes no number, which museval writes as NaN. The order in which several threads add
        # up changes the last digits, and songs already run in parallel.
        with np.errstate(divide="ignore", invalid="ignore"), threadpool_limits(1):
            sdr, isr, sir, sar, _ = _museval().metrics.bss_eval(*stems, window=frame_samples, hop=frame_samples)
        figures = {"SDR": sdr, "SIR": sir, "SAR": sar, "ISR": isr}
        scores = {
            source: {metric: figures[metric][place].tolist() for metric in METRICS}
            for place, source in enumerate(measured)
        }
        return scores, left_out
    return {}, {**left_out, **dict.fromkeys(measured, reason)}


def track_json(song: str, scores: Mapping[str, Mapping[str, list[float]]]) -> str:
    """A song's figures in museval's format, which SiSEC 2018 collected, checked against museval's schema."""
    store = _museval().aggregate.TrackStore(song, win=float(FRAME_SECONDS), hop=float(FRAME_SECONDS))
    for source, values in scores.items():
        store.add_target(source, values)
    store.validate()
    return store.json


def _is_silent(stem: np.ndarray) -> bool:
    """Silence to museval: the sum over channels is zero throughout."""
    return not stem.sum(axis=1, dtype=np.float64).any()


@functools.cache
def _museval() -> types.SimpleNamespace:
    """museval's modules for metrics and for files.

    `import museval` would import musdb, and that stempeg, which fails where there is no ffmpeg; these two need neither.
    """
    check_installed()
    stand_in = types.ModuleType("museval")
    stand_in.__path__ = list(importlib.util.find_spec("museval").submodule_search_locations)
    package = sys.modules.setdefault("museval", stand_in)
    try:
        return types.SimpleNamespace(
            **{name: importlib.import_module(f"museval.{name}") for name in ("aggregate", "metrics")}
        )
    finally:
        if package is stand_in:
            # Whoever imports museval later gets all of it.
            for name in [name for name in sys.modules if name.partition(".")[0] == "museval"]:
                del sys.modules[name]
