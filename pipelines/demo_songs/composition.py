"""The score of a demo song: its key, tempo and chords, and the stretches in which each stem plays."""

from collections.abc import Iterator

import numpy as np

from pipelines.demo_songs.sounds import SAMPLE_RATE

SPLITS = ("train", "valid", "test")
STEMS = ("drums", "bass", "other", "vocals")
STEPS_PER_BAR = 16  # sixteenth notes, four beats
NUM_SECTIONS = 8

# No key of one split is heard in another. 0 is C.
KEYS = {"train": (0, 2, 3, 5, 7, 8, 9, 11), "valid": (1, 6), "test": (4, 10)}
SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 3, 5, 7, 9, 10), (0, 2, 4, 5, 7, 9, 10))
PROGRESSIONS = (
    (0, 4, 5, 3),
    (0, 5, 3, 4),
    (5, 3, 0, 4),
    (0, 3, 0, 4),
    (0, 6, 5, 4),
    (0, 2, 3, 4),
    (0, 3, 5, 4),
    (0, 5, 1, 4),
)


class Score:
    """A song drawn at random: the plan that its four stems share.

    Time is counted in steps of a sixteenth note, pitch in MIDI notes (69 is 440 Hz).
    `chords` holds a scale degree for each bar and starts again when it ends.
    `stretches` says for each stem from which step to which it plays; outside of them it is silent.
    """

    def __init__(self, rng: np.random.Generator, *, split: str, song_seconds: float):
        self.num_samples = round(song_seconds * SAMPLE_RATE)
        self.tempo_bpm = rng.uniform(80, 150)
        self.swing = rng.choice((0.0, rng.uniform(0.1, 0.3)))
        self.key = int(rng.choice(KEYS[split]))
        self.scale = SCALES[rng.integers(len(SCALES))]
        self.chords = PROGRESSIONS[rng.integers(len(PROGRESSIONS))]
        self.stretches = _draw_stretches(rng, num_steps=int(np.ceil(song_seconds * self.tempo_bpm / 60 * 4)))

    @property
    def step_samples(self) -> float:
        """The length of a step in samples."""
        return SAMPLE_RATE * 60 / self.tempo_bpm / 4

    def sample_at(self, step: int) -> int:
        """Returns the sample at which a step starts; every second one is late by the swing."""
        return round((step + self.swing * (step % 2)) * self.step_samples)

    def steps(self, stem: str) -> Iterator[tuple[int, int, int]]:
        """Yields each step at which a stem plays, with the first step and the end of its stretch."""
        for first, end in self.stretches[stem]:
            for step in range(first, end):
                yield step, first, end

    def chord_notes(self, step: int, lowest: int, num_notes: int = 3) -> list[int]:
        """Returns the chord that sounds at a step, root first, each note within the octave above `lowest`."""
        degree = self.chords[step // STEPS_PER_BAR % len(self.chords)]
        notes = [self.key + self.scale[(degree + 2 * third) % 7] for third in range(num_notes)]
        return [lowest + (note - lowest) % 12 for note in notes]

    def scale_notes(self, lowest: int, highest: int) -> list[int]:
        """Returns the notes of the scale from `lowest` to `highest`, both included."""
        return [note for note in range(lowest, highest + 1) if (note - self.key) % 12 in self.scale]


def _draw_stretches(rng: np.random.Generator, num_steps: int) -> dict[str, tuple[tuple[int, int], ...]]:
    """Lets each stem rest in a section of its own, the vocals in the intro too, and never all four at once."""
    edges = [round(section * num_steps / NUM_SECTIONS / 2) * 2 for section in range(NUM_SECTIONS)] + [num_steps]
    own = rng.permutation(np.arange(1, NUM_SECTIONS))
    rests = {stem: {int(own[index])} for index, stem in enumerate(STEMS)}
    rests["vocals"].add(0)
    quiet_starter = rng.choice(("drums", "bass", "other", "nobody"))
    if quiet_starter != "nobody":
        rests[quiet_starter].add(0)
    stretches = {}
    for stem in STEMS:
        playing = [section not in rests[stem] for section in range(NUM_SECTIONS)]
        turns = np.flatnonzero(np.diff([False, *playing, False]))
        stretches[stem] = tuple((edges[first], edges[end]) for first, end in turns.reshape(-1, 2))
    return stretches
