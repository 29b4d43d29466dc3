"""Tempo and key of a stretch of music, and whether two stretches go together."""

import dataclasses
import warnings

import numpy as np

from sepnet.clips.measures import silence
from sepnet.clips.recipes import ClipRecipe

ANALYSIS_RATE = 22_050
HOP_SAMPLES = 256
# librosa's filters for low notes are long.
SHORTEST_SECONDS = 3.0
SLOWEST_BPM, FASTEST_BPM = 40.0, 240.0
# The tempo that is likeliest to be heard, and by how many octaves others may be away from it, as librosa has them.
USUAL_BPM, SPREAD_OCTAVES = 120.0, 1.0
LOWEST_NOTE, NUM_OCTAVES = "C2", 5
NOTES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
MODES = ("major", "minor")
# How well each note fits into a key whose tonic is the first. Reference: Krumhansl 1990, "Cognitive Foundations of
# Musical Pitch".
PROFILES = {
    "major": (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
    "minor": (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
}
KEYS = tuple(f"{note} {mode}" for mode in MODES for note in NOTES)
# From the tonic of a minor key up to that of the major key with the same notes.
MINOR_THIRD = 3


@dataclasses.dataclass(frozen=True)
class TempoAndKey:
    """Estimates of one stretch.

    Attributes:
        tempo_bpm: beats a minute, 40 to 240, perhaps half or twice what a listener taps; None if it cannot be told.
        tempo_confidence: correlation of the onsets with themselves one beat later, 0 to 1.
        key: such as "C# minor"; None if it cannot be told.
        key_confidence: correlation of the notes' strengths with the profile of that key, 0 to 1.
    """

    tempo_bpm: float | None
    tempo_confidence: float
    key: str | None
    key_confidence: float


def tempo_and_key(mixture: np.ndarray, sample_rate: int) -> TempoAndKey:
    """Estimates tempo and key; neither can be told of silence, or of less than 3 s.

    Args:
        mixture: float32 `[num_samples, num_channels]`, better 10 s than 5.
        sample_rate: Hz.
    """
    import librosa

    if len(mixture) < SHORTEST_SECONDS * sample_rate or silence(mixture, sample_rate) == 1:
        return TempoAndKey(None, 0.0, None, 0.0)
    mono = librosa.resample(mixture.mean(axis=1), orig_sr=sample_rate, target_sr=ANALYSIS_RATE)
    return TempoAndKey(*_tempo(mono), *_key(mono))


def alike(first: TempoAndKey | None, second: TempoAndKey | None, clip: ClipRecipe) -> bool:
    """Says whether two stretches may be mixed.

    Twice and half the tempo count as the same, for the beats fall together, and estimates confuse them. A major key and
    its relative minor count as the same, for their notes are the same, and estimates confuse them, too. What was not
    estimated, or with less than the recipe's confidence, is not alike; what the recipe does not ask for is not looked
    at.

    Args:
        first: of one stretch.
        second: of the other; the order makes no difference.
        clip: with its `tempo_tolerance`, `same_key` and `min_confidence`.
    """
    if not clip.needs_tempo_and_key:
        return True
    if first is None or second is None:
        return False
    if clip.tempo_tolerance is not None:
        if None in (first.tempo_bpm, second.tempo_bpm):
            return False
        if min(first.tempo_confidence, second.tempo_confidence) < clip.min_confidence:
            return False
        slower, faster = sorted((first.tempo_bpm, second.tempo_bpm))
        if min(abs(faster / slower - 1), abs(faster / (2 * slower) - 1)) > clip.tempo_tolerance:
            return False
    if clip.same_key:
        if None in (first.key, second.key) or min(first.key_confidence, second.key_confidence) < clip.min_confidence:
            return False
        return _notes_of(first.key) == _notes_of(second.key)
    return True


def _notes_of(key: str) -> int:
    """The tonic of the major key with the same notes, as its place in `NOTES`."""
    note, mode = key.split()
    return (NOTES.index(note) + MINOR_THIRD * (mode == "minor")) % len(NOTES)


def _tempo(mono: np.ndarray) -> tuple[float | None, float]:
    """The lag at which onsets resemble themselves most, the likelier tempos first."""
    import librosa
    from scipy.signal import find_peaks

    onsets = librosa.onset.onset_strength(y=mono, sr=ANALYSIS_RATE, hop_length=HOP_SAMPLES)
    onsets = onsets - onsets.mean()
    likeness = librosa.autocorrelate(onsets)
    frames_per_minute = 60 * ANALYSIS_RATE / HOP_SAMPLES
    longest = min(int(frames_per_minute / SLOWEST_BPM), len(onsets) // 2)
    if not likeness[0] > 0:
        return None, 0.0
    # Fewer frames overlap at longer lags.
    likeness = likeness[: longest + 2] / likeness[0] * (len(onsets) / np.arange(len(onsets), 0, -1)[: longest + 2])
    lags, _ = find_peaks(likeness)
    lags = lags[(lags >= frames_per_minute / FASTEST_BPM) & (likeness[lags] > 0)]
    if not lags.size:
        return None, 0.0
    octaves = np.log2(frames_per_minute / lags / USUAL_BPM)
    lag = int(lags[np.argmax(likeness[lags] * np.exp(-0.5 * (octaves / SPREAD_OCTAVES) ** 2))])
    # The peak of the parabola through the three values lies between the frames.
    before, peak, after = likeness[lag - 1 : lag + 2]
    exact_lag = lag + 0.5 * (before - after) / (before - 2 * peak + after)
    return round(float(frames_per_minute / exact_lag), 1), round(float(min(peak, 1.0)), 3)


def _key(mono: np.ndarray) -> tuple[str | None, float]:
    """The key whose profile the strengths of the twelve notes correlate with most."""
    import librosa

    with warnings.catch_warnings():
        # Where nothing but the lowest notes sounds, librosa takes A to be at 440 Hz, and says so.
        warnings.filterwarnings("ignore", message="Trying to estimate tuning")
        chroma = librosa.feature.chroma_cqt(
            y=mono,
            sr=ANALYSIS_RATE,
            norm=None,
            fmin=librosa.note_to_hz(LOWEST_NOTE),
            n_octaves=NUM_OCTAVES,
        )
    strengths = chroma.mean(axis=1)
    if not strengths.std() > 0:
        return None, 0.0
    profiles = [np.roll(PROFILES[mode], tonic) for mode in MODES for tonic in range(len(NOTES))]
    correlations = np.corrcoef(strengths, profiles)[0, 1:]
    best = int(np.argmax(correlations))
    return KEYS[best], round(float(np.clip(correlations[best], 0, 1)), 3)
