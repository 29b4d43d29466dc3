"""Figures of a clip that need no reference: loudness, silence, clipping, and an estimate of bleed.

Audio is float32 `[num_samples, num_channels]`, full scale ±1.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from pipelines.errors import UserError
from pipelines.songs.inspection import count_clipped

# BS.1770's gating block, and the most channels that it has weights for.
LOUDNESS_BLOCK_SECONDS = 0.4
MOST_CHANNELS = 5
SILENCE_WINDOW_SECONDS = 0.02
SILENCE_DBFS = -60.0
# Of sources that play together, notes that last as long as a frame look like bleed; shorter ones less so.
BLEED_FRAME_SECONDS = 0.023
# Stems below this share of the loudest are taken for silent in a frequency band.
SMALLEST_POWER = 1e-6
# Of a long clip not all spectra are held at once.
FRAMES_AT_ONCE = 256


@dataclasses.dataclass(frozen=True)
class Measures:
    """The measured qualities of a clip.

    Attributes:
        loudness_lufs: integrated loudness, to 0.01 LU; None below -70 LUFS, and where the clip is shorter than 0.4 s.
        silence: share of the time that is silent, 0 to 1.
        bleed: estimated share of the energy that comes from sources which the clip should not hold, 0 to 1; None where
            the clip holds all there are, or is too short.
        clipping: share of the samples in runs at full scale, 0 to 1.
    """

    loudness_lufs: float | None
    silence: float
    bleed: float | None
    clipping: float


def loudness_lufs(audio: np.ndarray, sample_rate: int) -> float | None:
    """Integrated loudness by ITU-R BS.1770-4, as EBU R 128 asks for it, LUFS.

    Returns:
        None if no block of 0.4 s is louder than -70 LUFS.

    Raises:
        UserError: the audio has more than 5 channels, which the standard has no weights for.
    """
    import pyloudnorm

    if audio.shape[1] > MOST_CHANNELS:
        raise UserError(
            f"loudness is defined for up to {MOST_CHANNELS} channels, and there are {audio.shape[1]}; leave the "
            "song out, or mix it down"
        )
    if len(audio) < LOUDNESS_BLOCK_SECONDS * sample_rate:
        return None
    loudness = pyloudnorm.Meter(sample_rate).integrated_loudness(audio.astype(np.float64))
    return round(float(loudness), 2) if math.isfinite(loudness) else None


def silence(audio: np.ndarray, sample_rate: int) -> float:
    """Share of windows of 20 ms, side by side, whose mean power over samples and channels is below -60 dBFS.

    A full-scale square wave has 0 dBFS. The last window may be shorter.
    """
    starts = np.arange(0, len(audio), max(round(SILENCE_WINDOW_SECONDS * sample_rate), 1))
    powers = np.einsum("ij,ij->i", audio, audio) / audio.shape[1]
    windows = np.add.reduceat(powers, starts, dtype=np.float64) / np.diff([*starts, len(audio)])
    return round(float(np.mean(windows < 10 ** (SILENCE_DBFS / 10))), 6)


def clipping(audio: np.ndarray) -> float:
    """Share of samples of all channels that end a run of three or more at full scale, as `pipelines.check` counts them.

    Full scale is what 16 bits can hold, 32767/32768, and above. A peak that touches it once is no clipping.
    """
    return round(count_clipped(np.abs(audio)) / audio.size, 6)


@dataclasses.dataclass(frozen=True)
class CrossPowers:
    """Products of signals with each other, by channel and frequency band: all that estimates of bleed need of them.

    Attributes:
        powers: complex `[num_channels, num_bins, num_signals, num_signals]`.
        num_frames: frames that these were summed over.
    """

    powers: np.ndarray
    num_frames: int


def cross_powers(signals: Sequence[np.ndarray], sample_rate: int) -> CrossPowers:
    """Spectra of signals times each other's, summed over the time.

    Args:
        signals: of one shape.
        sample_rate: Hz.
    """
    from scipy.fft import rfft

    frame_length = 2 ** round(math.log2(BLEED_FRAME_SECONDS * sample_rate))
    window = np.hanning(frame_length + 1)[:-1].astype(np.float32)
    padding = max(frame_length - len(signals[0]), 0)
    frames = [
        np.lib.stride_tricks.sliding_window_view(np.pad(signal, ((0, padding), (0, 0))), frame_length, axis=0)
        for signal in signals
    ]
    frames = [windows[:: frame_length // 2] for windows in frames]
    powers = np.zeros((signals[0].shape[1], frame_length // 2 + 1, len(signals), len(signals)), np.complex128)
    for start in range(0, len(frames[0]), FRAMES_AT_ONCE):
        # Each [num_frames, num_channels, num_bins].
        spectra = [rfft(windows[start : start + FRAMES_AT_ONCE] * window) for windows in frames]
        for row, spectrum in enumerate(spectra):
            conjugate = spectrum.conj()
            for column in range(row, len(spectra)):
                powers[..., row, column] += np.einsum("ijk,ijk->jk", spectra[column], conjugate).conj()
    lower = np.tril_indices(len(signals), -1)
    powers[..., lower[0], lower[1]] = powers[..., lower[1], lower[0]].conj()
    return CrossPowers(powers, len(frames[0]))


def bleed(crossed: CrossPowers, weights: Sequence[float], others: Sequence[int]) -> float | None:
    """Estimates the share of a clip's energy that comes from stems which it should not hold.

    It is the share that linear filters, one for each frequency band and the same all the time, can make of these stems:
    their multiple coherence with the clip, weighted by the clip's energy, less what unrelated signals reach by chance
    in so few frames. With stems that have nothing to do with each other, `g` times the others added to one of them
    gives the share of its energy that was added.

    It is no measurement, for nobody knows the true stems. Instruments that play the same notes at the same time
    resemble each other without any bleed: true stems of music have 0.00 to 0.09. Stems made with soft masks share the
    mixture's phases, which makes it several times too large; it still puts stems in the order in which true shares put
    them. It hears nothing of what is in none of the other stems, nor of what binary masks let through: where one stem
    has a frequency at a time, no other has it.

    Args:
        crossed: of stems, and of the mixture perhaps.
        weights: of each signal in the clip.
        others: places of the stems that the clip should not hold.

    Returns:
        0 to 1; None if there are no others, or no more frames than others.
    """
    if not others or crossed.num_frames <= len(others):
        return None
    powers, weights = crossed.powers, np.asarray(weights, np.float64)
    clip_power = float((weights @ powers @ weights).real.sum())
    if clip_power <= 0:
        return None
    shared = (powers @ weights)[..., list(others)]
    inverse = np.linalg.pinv(powers[..., list(others), :][..., list(others)], rcond=SMALLEST_POWER, hermitian=True)
    explained = float(np.einsum("...i,...ij,...j", shared.conj(), inverse, shared).real.sum()) / clip_power
    by_chance = crossed.num_frames / (crossed.num_frames - len(others))
    return round(min(max(1 - (1 - explained) * by_chance, 0.0), 1.0), 4)


def ratio_db(wanted: float, unwanted: float) -> float | None:
    """Ratio of two energies, dB; None where one of them is nothing."""
    return round(10 * math.log10(wanted / unwanted), 2) if wanted > 0 < unwanted else None
