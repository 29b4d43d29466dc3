"""Tempo and key of sounds that are made up so that both are known, and what goes together."""

import numpy as np
import pytest

from sepnet.clips.recipes import ClipKind, ClipRecipe
from sepnet.clips.tempo_and_key import TempoAndKey, alike, tempo_and_key

NOTES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
MAJOR, MINOR = (0, 4, 7), (0, 3, 7)
# I, IV, V, I: chords on these steps above the tonic. The dominant of a minor key is major.
CADENCES = {
    "major": ((0, MAJOR), (5, MAJOR), (7, MAJOR), (0, MAJOR)),
    "minor": ((0, MINOR), (5, MINOR), (7, MAJOR), (0, MINOR)),
}


def clicks(bpm: float, sample_rate: int, seconds: float = 10) -> np.ndarray:
    """Short bursts of noise, one a beat."""
    generator = np.random.default_rng(0)
    audio = np.zeros((round(seconds * sample_rate), 2), np.float32)
    burst = np.exp(-np.arange(sample_rate // 20) / (0.01 * sample_rate))
    for beat in np.arange(0.1, seconds - 0.1, 60 / bpm):
        place = round(beat * sample_rate)
        audio[place : place + len(burst)] += (0.5 * burst * generator.standard_normal(len(burst)))[:, None]
    return audio


def cadence(tonic: int, mode: str, sample_rate: int) -> np.ndarray:
    """Four chords of 2 s of tones with six harmonics that die away, with their roots in the bass."""
    time = np.arange(2 * sample_rate) / sample_rate
    audio = []
    for root, chord in CADENCES[mode]:
        pitches = [36 + (tonic + root) % 12, *(60 + (tonic + root + step) % 12 for step in chord)]
        frequencies = [440 * 2 ** ((pitch - 69) / 12) for pitch in pitches]
        tones = [
            np.sin(2 * np.pi * frequency * harmonic * time) / harmonic
            for frequency in frequencies
            for harmonic in range(1, 7)
            if frequency * harmonic < sample_rate / 2
        ]
        audio.append(0.1 * sum(tones) * np.exp(-time))
    return np.repeat(np.concatenate(audio)[:, None], 2, axis=1).astype(np.float32)


@pytest.mark.parametrize("sample_rate", [8000, 44_100])
@pytest.mark.parametrize("bpm", [72, 96, 120, 143.7])
def test_tempo_of_clicks(bpm, sample_rate):
    found = tempo_and_key(clicks(bpm, sample_rate), sample_rate)
    assert found.tempo_bpm == pytest.approx(bpm, rel=0.01)
    assert found.tempo_confidence > 0.5


@pytest.mark.parametrize("bpm", [50, 190, 210])
def test_tempo_of_slow_and_fast_clicks_is_right_but_for_octaves(bpm):
    found = tempo_and_key(clicks(bpm, 22_050), 22_050)
    assert min(abs(found.tempo_bpm * factor / bpm - 1) for factor in (0.5, 1, 2)) < 0.01


@pytest.mark.parametrize(
    ("tonic", "mode"),
    [(0, "major"), (6, "major"), (7, "major"), (10, "major"), (9, "minor"), (3, "minor"), (1, "minor")],
)
@pytest.mark.parametrize("sample_rate", [8000, 44_100])
def test_key_of_cadences(tonic, mode, sample_rate):
    found = tempo_and_key(cadence(tonic, mode, sample_rate), sample_rate)
    assert found.key == f"{NOTES[tonic]} {mode}"
    assert found.key_confidence > 0.7


def test_noise_has_neither_for_sure():
    noise = 0.1 * np.random.default_rng(1).standard_normal((441_000, 2)).astype(np.float32)
    found = tempo_and_key(noise, 44_100)
    assert found.tempo_confidence < 0.3
    assert found.key_confidence < 0.7


@pytest.mark.parametrize("num_samples", [100, 4410, 441_000])
def test_silence_has_neither(num_samples):
    assert tempo_and_key(np.zeros((num_samples, 2), np.float32), 44_100) == TempoAndKey(None, 0.0, None, 0.0)


@pytest.mark.parametrize("bpm", [72, 120])
def test_the_shortest_stretch_has_a_tempo_and_shorter_ones_do_not(bpm):
    audio = clicks(bpm, 8000, 3)
    assert tempo_and_key(audio, 8000).tempo_bpm == pytest.approx(bpm, rel=0.03)
    assert tempo_and_key(audio[:-1], 8000) == TempoAndKey(None, 0.0, None, 0.0)


def tone(frequency: float) -> np.ndarray:
    return 0.1 * np.sin(2 * np.pi * frequency * np.arange(441_000) / 44_100).astype(np.float32)[:, None]


@pytest.mark.parametrize("frequency", [440, 3900])
def test_a_steady_tone_has_no_tempo(frequency):
    assert tempo_and_key(tone(frequency), 44_100).tempo_confidence < 0.3


@pytest.mark.parametrize("frequency", [30, 60, 440])
def test_a_steady_tone_is_no_key(frequency):
    assert tempo_and_key(tone(frequency), 44_100).key_confidence < 0.7


def estimate(tempo_bpm=120.0, key="C major", tempo_confidence=0.8, key_confidence=0.8) -> TempoAndKey:
    return TempoAndKey(tempo_bpm, tempo_confidence, key, key_confidence)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (estimate(), True),
        (estimate(122.0), True),
        (estimate(124.0), False),
        (estimate(60.5), True),
        (estimate(239.0), True),
        (estimate(80.0), False),
        (estimate(None), False),
        (estimate(key="A minor"), True),
        (estimate(key="C minor"), False),
        (estimate(key="G major"), False),
        (estimate(key=None), False),
        (estimate(tempo_confidence=0.2), False),
        (estimate(key_confidence=0.2), False),
        (None, False),
    ],
)
def test_what_is_alike(other, expected):
    clip = ClipRecipe(ClipKind.REMIX, ("drums",), "x", tempo_tolerance=0.02, same_key=True, min_confidence=0.3)
    assert alike(estimate(), other, clip) is expected
    assert alike(other, estimate(), clip) is expected


def test_what_is_not_asked_for_is_not_looked_at():
    any_song = ClipRecipe(ClipKind.REMIX, ("drums",), "x", min_confidence=0.9)
    assert alike(None, None, any_song)
    any_key = ClipRecipe(ClipKind.REMIX, ("drums",), "x", tempo_tolerance=0.02, min_confidence=0.5)
    assert alike(estimate(), estimate(key=None, key_confidence=0.0), any_key)
    any_tempo = ClipRecipe(ClipKind.REMIX, ("drums",), "x", same_key=True, min_confidence=0.5)
    assert alike(estimate(), estimate(None, tempo_confidence=0.0), any_tempo)
    assert alike(estimate(key="F# minor"), estimate(77.0, key="A major"), any_tempo)
