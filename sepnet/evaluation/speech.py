"""PESQ and STOI of speech, as the packages `pesq` and `pystoi` give them."""

import importlib.metadata
import warnings
from collections.abc import Collection

import numpy as np

from pipelines.errors import UserError, check_packages
from sepnet.separation.sample_streams import resample

# The source that is taken for speech unless others are named.
SPEECH = "speech"
# How tables call the figures, and the digits that they show.
METRICS = {"pesq_wb": "PESQ (wide band)", "pesq_nb": "PESQ (narrow band)", "stoi": "STOI"}
DIGITS = {"pesq_wb": 2, "pesq_nb": 2, "stoi": 3}
MEASURES = ("pesq", "pystoi")
NEEDED_PACKAGES = (*MEASURES, "threadpoolctl")
WIDE_HZ, NARROW_HZ = 16_000, 8_000
# `pesq` has room for 50 utterances, and more of them end the process. Each takes 0.2 s and a pause as long, so this
# cannot hold as many. `pystoi` takes 2 MB of memory for each second.
MOST_SECONDS = 15
# With less, `pesq` refuses.
LEAST_SECONDS = 0.25


def speech_sources(asked: str | None, sources: Collection[str], quick: bool) -> tuple[str, ...]:
    """The sources that are measured as speech.

    Args:
        asked: names with commas; None takes the source called "speech", if there is one.
        sources: of the models.
        quick: leaves out what was not asked for.

    Raises:
        UserError: a name is none of the sources, or the packages are not installed.
    """
    if asked is None:
        names = () if quick or SPEECH not in sources else (SPEECH,)
    else:
        names = tuple(dict.fromkeys(name.strip() for name in asked.split(",")))
    if unknown := [name for name in names if name not in sources]:
        raise UserError(f"--speech names {', '.join(unknown)}, and the models give {', '.join(sources)}; name of these")
    if names:
        check_packages(NEEDED_PACKAGES, "PESQ and STOI of speech, which --quick leaves out", "evaluate")
    return names


def versions() -> dict[str, str]:
    """The versions of the packages that the figures come from."""
    return {package: importlib.metadata.version(package) for package in MEASURES}


def speech_scores(speech: np.ndarray, estimate: np.ndarray, sample_rate: int) -> dict[str, list[float | None]]:
    """PESQ and STOI of every excerpt of an estimate of speech: of every channel of equal pieces of 15 s at most.

    Both are measured at 16 kHz, PESQ in the wide band (ITU-T P.862.2, MOS-LQO); songs of lower rates at 8 kHz, in the
    narrow band (P.862.1).

    Args:
        speech: the true stem, float32 `[num_samples, num_channels]`, full scale ±1.
        estimate: likewise.
        sample_rate: Hz.

    Returns:
        `pesq_wb` or `pesq_nb`, and `stoi`: a figure for each excerpt. None where it is below -80 dBFS or shorter than
        0.25 s; where PESQ finds no utterance, or no sound in the estimate; where speech is too short for STOI.

    References: ITU-T P.862.2, 2007; Taal, Hendriks, Heusdens, Jensen 2011, "An Algorithm for Intelligibility Prediction
    of Time-Frequency Weighted Noisy Speech".
    """
    from threadpoolctl import threadpool_limits

    from sepnet.measures.metrics import SILENCE_POWER

    metric, mode, rate = ("pesq_wb", "wb", WIDE_HZ) if sample_rate >= WIDE_HZ else ("pesq_nb", "nb", NARROW_HZ)
    true, estimated = (
        np.concatenate(list(resample([audio], sample_rate, rate, audio.shape[1]))).astype(np.float64)
        for audio in (speech, estimate)
    )
    num_pieces = -(-len(true) // (MOST_SECONDS * rate))
    scores = {metric: [], "stoi": []}
    # As with museval, several threads would change the last digits.
    with threadpool_limits(1):
        for pair in zip(*(np.array_split(audio, num_pieces) for audio in (true, estimated)), strict=True):
            for excerpt in zip(*(piece.T for piece in pair), strict=True):
                is_measured = len(excerpt[0]) >= LEAST_SECONDS * rate and np.mean(excerpt[0] ** 2) > SILENCE_POWER
                scores[metric].append(_pesq(*excerpt, rate, mode) if is_measured else None)
                scores["stoi"].append(_stoi(*excerpt, rate) if is_measured else None)
    return scores


def _pesq(speech: np.ndarray, estimate: np.ndarray, sample_rate: int, mode: str) -> float | None:
    from pesq import PesqError, pesq

    score = pesq(sample_rate, speech, estimate, mode, PesqError.RETURN_VALUES)
    if score in (PesqError.OUT_OF_MEMORY_REF, PesqError.OUT_OF_MEMORY_DEG, PesqError.OUT_OF_MEMORY_TMP):
        raise MemoryError
    # Errors are below zero, and silent estimates give NaN.
    return float(score) if score > 0 else None


def _stoi(speech: np.ndarray, estimate: np.ndarray, sample_rate: int) -> float | None:
    from pystoi import stoi

    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Not enough STFT frames", RuntimeWarning)
        try:
            return float(stoi(speech, estimate, sample_rate))
        except RuntimeWarning:
            return None
