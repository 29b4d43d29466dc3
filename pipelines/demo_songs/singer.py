"""The singer of a demo song: a glottal source with vibrato and glides, shaped by the formants of vowels."""

import dataclasses

import numpy as np

from pipelines.demo_songs import sounds
from pipelines.demo_songs.composition import Score

Rng = np.random.Generator

# Centres of the first four formants of a male voice, in Hz.
VOWELS_HZ = (
    (730, 1090, 2440, 3400),  # a
    (530, 1840, 2480, 3500),  # e
    (300, 2290, 3010, 3600),  # i
    (570, 840, 2410, 3300),  # o
    (320, 870, 2240, 3200),  # u
)
FORMANT_WIDTHS_HZ = (90, 110, 170, 250)
MAX_HARMONICS = 40


class _Singer:
    """The voice that sings a whole score. Vibrato depth and scoops are in semitones, tilt in powers of frequency."""

    def __init__(self, rng: Rng):
        high = rng.random() < 0.5
        self.lowest = int(rng.integers(55, 60) if high else rng.integers(45, 51))
        self.tract = rng.uniform(1.1, 1.25) if high else rng.uniform(0.92, 1.08)
        self.tilt = rng.uniform(0.4, 0.9)
        self.formant_gains = np.array((1.0, 0.7, 0.4, 0.25)) * rng.uniform(0.7, 1.3, size=4)
        self.vibrato_hz = rng.uniform(4.8, 6.8)
        self.vibrato_depth = rng.uniform(0.15, 0.6)
        self.glide_seconds = rng.uniform(0.05, 0.12)
        self.breath = rng.uniform(0.01, 0.05)
        self.syllable_dip = rng.uniform(0.3, 0.9)


@dataclasses.dataclass(frozen=True)
class _Syllable:
    """One sung note; `start` and `num_samples` count from the start of its phrase."""

    start: int
    num_samples: int
    note: int
    vowel: int
    consonant: str


def play_vocals(score: Score, rng: Rng) -> np.ndarray:
    """Sings phrases with rests between them. Returns `[num_samples, 2]` float32 of any level."""
    singer = _Singer(rng)
    track = np.zeros(score.num_samples, np.float32)
    melody = _Melody(score, rng, singer.lowest)
    for first, end in score.stretches["vocals"]:
        step = first + int(rng.integers(0, 3))
        while end - step >= 4:
            phrase_end = min(end, step + int(rng.integers(14, 29)))
            sounds.place(track, _sing(rng, singer, melody.phrase(step, phrase_end)), score.sample_at(step))
            step = phrase_end + int(rng.integers(2, 7))
    dry = sounds.pan(track, rng.uniform(-0.15, 0.15))
    return dry + np.float32(rng.uniform(0.1, 0.3)) * sounds.reverb(dry, rng.uniform(0.4, 0.8))


class _Melody:
    """A walk on the scale that prefers small steps, and notes of the chord on the beat."""

    def __init__(self, score: Score, rng: Rng, lowest: int):
        self.score, self.rng = score, rng
        self.notes = score.scale_notes(lowest, lowest + 16)
        self.place = len(self.notes) // 2
        self.rhythm = rng.choice((1, 2, 2, 2, 3, 4, 4, 6), size=int(rng.integers(5, 9)))

    def phrase(self, first: int, end: int) -> list[_Syllable]:
        """Returns the syllables from step `first` to step `end`; the last one is held."""
        syllables, step = [], first
        while step < end:
            length = int(self.rhythm[len(syllables) % len(self.rhythm)])
            stop = end if end - step - length < 2 else step + length
            start, finish = (self.score.sample_at(edge) - self.score.sample_at(first) for edge in (step, stop))
            syllables.append(
                _Syllable(
                    start=start,
                    num_samples=finish - start,
                    note=self._next_note(step),
                    vowel=int(self.rng.integers(len(VOWELS_HZ))),
                    consonant=str(self.rng.choice(("hiss", "stop", "soft", "none"))),
                )
            )
            step = stop
        return syllables

    def _next_note(self, step: int) -> int:
        move = int(self.rng.choice((-3, -2, -1, -1, 0, 1, 1, 2, 4)))
        self.place = int(np.clip(self.place + move, 0, len(self.notes) - 1))
        if step % 4 == 0:
            chord = {note % 12 for note in self.score.chord_notes(step, 48)}
            near = [place for place, note in enumerate(self.notes) if note % 12 in chord]
            self.place = min(near, key=lambda place: abs(place - self.place))
        return self.notes[self.place]


def _sing(rng: Rng, singer: _Singer, syllables: list[_Syllable]) -> np.ndarray:
    """Sings one phrase; its curves are drawn at control points and smoothed, so that pitch and vowels glide."""
    num_samples = syllables[-1].start + syllables[-1].num_samples
    seconds = np.arange(sounds.num_points(num_samples)) * sounds.HOP / sounds.SAMPLE_RATE
    starts = np.array([syllable.start for syllable in syllables]) / sounds.SAMPLE_RATE
    current = np.searchsorted(starts, seconds, side="right") - 1
    since_start = seconds - starts[current]

    notes = _smooth(np.array([syllable.note for syllable in syllables], float)[current], singer.glide_seconds)
    wander = _smooth(rng.standard_normal(len(seconds)), 0.1) * 0.3
    vibrato = np.clip((since_start - 0.12) / 0.3, 0, 1) * np.sin(2 * np.pi * singer.vibrato_hz * seconds)
    frequency_hz = sounds.hertz(notes + singer.vibrato_depth * vibrato + wander)

    formants_hz = np.array([VOWELS_HZ[syllable.vowel] for syllable in syllables], float)[current].T * singer.tract
    formants_hz = np.stack([_smooth(formant, 0.08) for formant in formants_hz])
    level = _smooth(1 - singer.syllable_dip * (since_start < 0.04), 0.04)
    level *= 1 + 0.15 * _smooth(rng.standard_normal(len(seconds)), 0.3)
    level *= np.clip(seconds / 0.04, 0, 1) * np.clip((seconds[-1] - seconds) / 0.12, 0, 1)

    harmonics_hz = np.arange(1, MAX_HARMONICS + 1)[:, None] * frequency_hz
    amplitudes = level * _formant_gain(harmonics_hz, formants_hz, singer) * (harmonics_hz / 200) ** -singer.tilt
    sound = sounds.additive(frequency_hz, amplitudes)[:num_samples]
    voiced = max(sounds.rms(sound), 1e-9)

    air = sounds.noise(rng, num_samples, 1200 * singer.tract, 5000 * singer.tract)
    sound += np.float32(singer.breath * 2 * voiced) * air * sounds.upsample(level)[:num_samples]
    for syllable in syllables:
        sounds.place(sound, np.float32(voiced) * _consonant(rng, syllable.consonant), syllable.start)
    return sounds.fade(sound, 0.002, 0.02)


def _formant_gain(harmonics_hz: np.ndarray, formants_hz: np.ndarray, singer: _Singer) -> np.ndarray:
    """Returns the sum of the formants' resonance curves at `[num_harmonics, num_points]` frequencies."""
    gain = np.full(harmonics_hz.shape, 0.02)
    for centre_hz, width_hz, strength in zip(formants_hz, FORMANT_WIDTHS_HZ, singer.formant_gains, strict=True):
        gain += strength / (1 + ((harmonics_hz - centre_hz) / width_hz) ** 2)
    return gain


def _consonant(rng: Rng, kind: str) -> np.ndarray:
    """A burst of noise: `hiss` is like s, `stop` like t, `soft` like h; `none` is empty."""
    if kind == "none":
        return np.zeros(0, np.float32)
    low_hz, high_hz, seconds, gain = {
        "hiss": (4000, 9000, rng.uniform(0.06, 0.11), 0.5),
        "stop": (1500, 6000, rng.uniform(0.015, 0.03), 0.9),
        "soft": (800, 3500, rng.uniform(0.04, 0.08), 0.3),
    }[kind]
    burst = sounds.noise(rng, int(seconds * sounds.SAMPLE_RATE), low_hz, high_hz)
    return np.float32(gain) * sounds.fade(burst, 0.3 * seconds, 0.6 * seconds)


def _smooth(curve: np.ndarray, seconds: float) -> np.ndarray:
    """Smooths control points with a Hann window that is `seconds` wide; the ends are held."""
    half = max(1, int(seconds * sounds.SAMPLE_RATE / sounds.HOP / 2))
    window = np.hanning(2 * half + 3)[1:-1]
    return np.convolve(np.pad(curve, half, mode="edge"), window / window.sum(), mode="valid")
