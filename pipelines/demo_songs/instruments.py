"""The band of a demo song: drums, bass and other.

Each `play_*` takes the score and a random generator, draws an instrument and a part of its own, and returns
`[num_samples, 2]` float32 of any level.
"""

import functools
from collections.abc import Callable

import numpy as np

from pipelines.demo_songs import sounds
from pipelines.demo_songs.composition import STEPS_PER_BAR, Score

Rng = np.random.Generator
Range = tuple[float, float]
NUM_TAKES = 3


def play_drums(score: Score, rng: Rng) -> np.ndarray:
    """Kick, snare, hi-hat, tom and crash: a pattern of one bar that varies, with a fill every fourth bar."""
    kit = {name: (build(rng), rng.uniform(-width, width)) for name, (build, width) in KIT.items()}
    hat_every = rng.choice((1, 2, 2, 4))
    kicks = {0, *np.flatnonzero(rng.random(STEPS_PER_BAR) < np.tile((0.1, 0.05, 0.4, 0.1), 4))}
    snares = {4, 12} if rng.random() < 0.75 else {8}
    track = np.zeros((score.num_samples, 2), np.float32)

    def strike(name: str, step: int, velocity: float) -> None:
        takes, position = kit[name]
        hit = takes[rng.integers(len(takes))] * np.float32(velocity * rng.uniform(0.85, 1))
        sounds.place(track, sounds.pan(hit, position), score.sample_at(step))

    for step, first, _ in score.steps("drums"):
        bar, bar_step = divmod(step, STEPS_PER_BAR)
        if step == first:
            strike("crash", step, 0.5)
        if bar % 4 == 3 and bar_step >= 12:
            if rng.random() < 0.8:
                strike(rng.choice(("snare", "tom")), step, 0.6 + 0.1 * (bar_step - 12))
            continue
        if bar_step in kicks or rng.random() < 0.03:
            strike("kick", step, 1.0)
        if bar_step in snares:
            strike("snare", step, 0.9)
        elif rng.random() < 0.04:
            strike("snare", step, 0.25)
        if step % hat_every == 0:
            is_open = bar_step == 14 or rng.random() < 0.04
            strike("open_hat" if is_open else "hat", step, 0.8 if step % 4 == 0 else 0.5)
    return track


def _swept_drum(rng: Rng, *, pitch_hz: Range, seconds: Range, gain: float) -> list[np.ndarray]:
    """A kick or a tom: a sine that falls, and a click. Returns three takes, which differ in their noise alone."""
    ring_seconds, fall, fall_seconds = rng.uniform(*seconds), rng.uniform(1.5, 4.0), rng.uniform(0.1, 0.2)
    num_samples = int(ring_seconds * sounds.SAMPLE_RATE)
    frequency_hz = rng.uniform(*pitch_hz) * (1 + fall * sounds.decay(num_samples, fall_seconds))
    body = np.sin(2 * np.pi * np.cumsum(frequency_hz) / sounds.SAMPLE_RATE)
    body = body.astype(np.float32) * sounds.decay(num_samples, ring_seconds)
    takes = []
    for _ in range(NUM_TAKES):
        click = sounds.noise(rng, num_samples, 800, 4000)
        click *= sounds.decay(num_samples, 0.02)
        takes.append(sounds.fade(gain * (body + 0.15 * click), 0.001, 0.02))
    return takes


def _noise_drum(
    rng: Rng, *, edge_hz: Range, seconds: Range, gain: float, tone_hz: Range | None = None
) -> list[np.ndarray]:
    """A cymbal, high noise alone, or a snare, which has a tone too. Returns three takes."""
    ring_seconds, low_hz = rng.uniform(*seconds), rng.uniform(*edge_hz)
    num_samples = int(ring_seconds * sounds.SAMPLE_RATE)
    tone = np.zeros(num_samples, np.float32)
    if tone_hz:
        phase = 2 * np.pi * rng.uniform(*tone_hz) / sounds.SAMPLE_RATE * np.arange(num_samples)
        tone += (np.sin(phase) + 0.6 * np.sin(1.6 * phase)) * sounds.decay(num_samples, 0.15)
    takes = []
    for _ in range(NUM_TAKES):
        rattle = sounds.noise(rng, num_samples, low_hz, 0.45 * sounds.SAMPLE_RATE)
        rattle *= sounds.decay(num_samples, ring_seconds)
        takes.append(sounds.fade(gain * (0.4 * rattle + 0.6 * tone), 0.001, 0.02))
    return takes


# Each drum, and how far from the middle it may stand.
KIT = {
    "kick": (functools.partial(_swept_drum, pitch_hz=(42, 62), seconds=(0.25, 0.5), gain=1.0), 0.0),
    "tom": (functools.partial(_swept_drum, pitch_hz=(80, 140), seconds=(0.3, 0.5), gain=0.6), 0.4),
    "snare": (
        functools.partial(_noise_drum, edge_hz=(600, 1800), seconds=(0.15, 0.35), gain=0.7, tone_hz=(160, 230)),
        0.1,
    ),
    "hat": (functools.partial(_noise_drum, edge_hz=(5000, 7500), seconds=(0.05, 0.12), gain=0.45), 0.4),
    "open_hat": (functools.partial(_noise_drum, edge_hz=(5000, 7500), seconds=(0.3, 0.5), gain=0.4), 0.4),
    "crash": (functools.partial(_noise_drum, edge_hz=(2500, 4500), seconds=(0.9, 1.6), gain=0.5), 0.5),
}


def play_bass(score: Score, rng: Rng) -> np.ndarray:
    """Low notes, E1 to G3, on a pattern of one bar: roots, octaves, fifths and thirds, plucked or sustained."""
    voice = functools.cache(_bass_voice(rng))
    lowest, legato = int(rng.integers(28, 34)), rng.uniform(0.6, 1.0)
    chances = np.tile((0.5, 0.08), STEPS_PER_BAR // 2)
    onsets = [0, *(step for step in range(2, STEPS_PER_BAR) if rng.random() < chances[step])]
    choices = ("root", "root", "root", "fifth", "octave", "third")
    pattern = {0: "root"} | {step: str(rng.choice(choices)) for step in onsets[1:]}
    track = np.zeros(score.num_samples, np.float32)
    for step, first, end in score.steps("bass"):
        if step % STEPS_PER_BAR not in pattern and step != first:
            continue
        root, third, fifth = score.chord_notes(step, lowest)
        notes = {"root": root, "third": third, "fifth": fifth, "octave": root + 12}
        note = notes[pattern.get(step % STEPS_PER_BAR, "root")]
        stop = next((later for later in range(step + 1, end) if later % STEPS_PER_BAR in pattern), end)
        sound = voice(note, int((stop - step) * score.step_samples * legato))
        sounds.place(track, sound * np.float32(rng.uniform(0.8, 1.0)), score.sample_at(step))
    return sounds.pan(track, rng.uniform(-0.08, 0.08))


def _bass_voice(rng: Rng) -> Callable[[int, int], np.ndarray]:
    """A saw or square wave behind a low-pass filter that closes, or FM whose index falls."""
    family = rng.choice(("saw", "square", "fm"))
    cutoff_hz, opening, closing_seconds = rng.uniform(250, 700), rng.uniform(1, 5), rng.uniform(0.15, 0.6)
    ring_seconds = rng.uniform(0.8, 2.0) if rng.random() < 0.5 else 30.0
    ratio, index = rng.choice((1, 2, 3)), rng.uniform(0.8, 2.5)
    harmonics = np.arange(1, 25)[:, None]
    slopes = {"saw": 1.0 / harmonics, "square": (harmonics % 2) / harmonics + 0.05 / harmonics}

    def voice(note: int, num_samples: int) -> np.ndarray:
        frequency_hz = np.full(sounds.num_points(num_samples), sounds.hertz(note))
        seconds = np.arange(len(frequency_hz)) * sounds.HOP / sounds.SAMPLE_RATE
        closing = np.exp(-seconds / closing_seconds)
        if family == "fm":
            phase = 2 * np.pi * frequency_hz[0] * np.arange(num_samples) / sounds.SAMPLE_RATE
            sound = np.sin(phase + index * sounds.upsample(closing)[:num_samples] * np.sin(ratio * phase))
            sound = sound.astype(np.float32)
        else:
            edge_hz = cutoff_hz * (1 + opening * closing)
            amplitudes = slopes[family] / (1 + (harmonics * frequency_hz / edge_hz) ** 4)
            sound = sounds.additive(frequency_hz, amplitudes)[:num_samples]
        sound *= sounds.decay(num_samples, ring_seconds)
        return sounds.fade(sound, 0.005, 0.03)

    return voice


def play_other(score: Score, rng: Rng) -> np.ndarray:
    """Chords on keys or a pad, and often an arpeggio of plucked strings, in a small room."""
    track = np.zeros((score.num_samples, 2), np.float32)
    lowest = int(rng.integers(43, 56))
    layers = [rng.choice((_play_pad, _play_keys))]
    if rng.random() < 0.7:
        layers.append(_play_arpeggio)
    for layer in layers:
        part = layer(score, rng, lowest)
        track += part / max(sounds.rms(part), 1e-9) * np.float32(rng.uniform(0.6, 1.0))
    # A short delay on one side takes the two apart a little.
    side = track[:, rng.integers(2)]
    side += np.float32(0.4) * sounds.delay(side, int(rng.uniform(0.004, 0.012) * sounds.SAMPLE_RATE))
    return track + np.float32(rng.uniform(0.1, 0.3)) * sounds.reverb(track, rng.uniform(0.4, 0.9))


def _play_pad(score: Score, rng: Rng, lowest: int) -> np.ndarray:
    """A chord that lasts a bar or half of one: two detuned voices a note, left and right of the middle."""
    num_harmonics = int(rng.integers(6, 12))
    harmonics = np.arange(1, num_harmonics + 1)[:, None]
    tilt, breathing_hz, detune = rng.uniform(0.9, 1.8), rng.uniform(0.1, 0.6), rng.uniform(0.03, 0.12)
    drawbars = rng.uniform(0.2, 1.0, size=(num_harmonics, 1))
    attack_seconds, num_notes = rng.uniform(0.03, 0.25), int(rng.integers(3, 5))
    length = int(rng.choice((8, 16)))

    @functools.cache
    def voice(note: int, num_samples: int) -> np.ndarray:
        seconds = np.arange(sounds.num_points(num_samples)) * sounds.HOP / sounds.SAMPLE_RATE
        slope = tilt + 0.5 * np.sin(2 * np.pi * breathing_hz * seconds)
        both = np.zeros((num_samples, 2), np.float32)
        for side in (-1, 1):
            frequency_hz = np.full(len(seconds), sounds.hertz(note + side * detune))
            sound = sounds.additive(frequency_hz, drawbars * harmonics**-slope)[:num_samples]
            both += sounds.pan(sounds.fade(sound, attack_seconds, 0.08), 0.5 * side)
        return both

    track = np.zeros((score.num_samples, 2), np.float32)
    for step, first, end in score.steps("other"):
        if step % length and step != first:
            continue
        num_samples = int((min(end, (step // length + 1) * length) - step) * score.step_samples)
        for note in score.chord_notes(step, lowest, num_notes):
            sounds.place(track, voice(note, num_samples), score.sample_at(step))
    return track


def _play_keys(score: Score, rng: Rng, lowest: int) -> np.ndarray:
    """Chords struck on a rhythm of one bar."""
    voice = functools.cache(_string_voice(rng))
    onsets = {0, *np.flatnonzero(rng.random(STEPS_PER_BAR) < np.tile((0.35, 0.05, 0.3, 0.1), 4))}
    num_notes, length = int(rng.integers(3, 5)), int(rng.integers(3, 9))
    track = np.zeros(score.num_samples, np.float32)
    for step, first, end in score.steps("other"):
        if step % STEPS_PER_BAR not in onsets and step != first:
            continue
        for note in score.chord_notes(step, lowest, num_notes):
            sound = voice(note, int(min(length, end - step) * score.step_samples))
            sounds.place(track, sound * np.float32(rng.uniform(0.7, 1.0)), score.sample_at(step))
    return sounds.pan(track, rng.uniform(-0.4, 0.4))


def _play_arpeggio(score: Score, rng: Rng, lowest: int) -> np.ndarray:
    """The notes of the chord one after the other, over two octaves."""
    voice = functools.cache(_string_voice(rng))
    every = int(rng.choice((1, 2, 2)))
    order = rng.integers(0, 6, size=int(rng.integers(4, 9)))
    track = np.zeros(score.num_samples, np.float32)
    for step, _, end in score.steps("other"):
        if step % every:
            continue
        chord = sorted(score.chord_notes(step, lowest))
        note = [*chord, *(note + 12 for note in chord)][order[step // every % len(order)]]
        sound = voice(note, int(min(3 * every, end - step) * score.step_samples))
        sounds.place(track, sound * np.float32(rng.uniform(0.6, 1.0)), score.sample_at(step))
    return sounds.pan(track, rng.uniform(-0.5, 0.5))


def _string_voice(rng: Rng) -> Callable[[int, int], np.ndarray]:
    """A plucked or struck string: partials that are a little sharp, and die the faster the higher they are."""
    harmonics = np.arange(1, 13)[:, None]
    pluck_at, tilt = rng.uniform(0.1, 0.45), rng.uniform(0.7, 1.6)
    amplitudes = (np.abs(np.sin(np.pi * harmonics * pluck_at)) * harmonics**-tilt).astype(np.float32)
    ring_seconds, damping = rng.uniform(0.8, 2.5), rng.uniform(0.1, 0.5)
    stiffness = 10 ** rng.uniform(-4.5, -3.3)

    def voice(note: int, num_samples: int) -> np.ndarray:
        seconds = np.arange(num_samples) / sounds.SAMPLE_RATE
        partials_hz = sounds.hertz(note) * harmonics * np.sqrt(1 + stiffness * harmonics**2)
        heard = partials_hz[:, 0] < 0.45 * sounds.SAMPLE_RATE
        phases = (2 * np.pi * (partials_hz[heard] * seconds % 1)).astype(np.float32)
        rates = (6.9 / ring_seconds * (1 + damping * (harmonics[heard] - 1))).astype(np.float32)
        partials = np.sin(phases) * np.exp(-rates * seconds.astype(np.float32))
        return sounds.fade((amplitudes[heard] * partials).sum(axis=0), 0.002, 0.03)

    return voice
