"""The demo songs: a small multitrack data set, synthesised on first use, in MUSDB18-HQ's layout.

    <folder>/{train,valid,test}/<Song Name>/{mixture,drums,bass,other,vocals}.wav

MUSDB18-HQ itself has no `valid`. The files are 16-bit stereo, and the mixture is the exact sum of its stems.
"""

import pathlib
import types
import wave
from collections.abc import Mapping

import numpy as np

from pipelines.cache import cache_path
from pipelines.demo_songs import instruments, singer, sounds
from pipelines.demo_songs.composition import SPLITS, STEMS, Score
from pipelines.files import whole_folder
from pipelines.progress import progress_bar

GENERATOR_VERSION = 1  # raise it with every change that can be heard: the cache's folder is named after it
NUM_SONGS = types.MappingProxyType({"train": 16, "valid": 3, "test": 3})
PEAK = 0.9
HEADROOM = 3.5  # a stem's highest peak, in units of its RMS

PLAYERS = {
    "drums": instruments.play_drums,
    "bass": instruments.play_bass,
    "other": instruments.play_other,
    "vocals": singer.play_vocals,
}
# The range that a stem's level is drawn from, in dB beside the other stems.
LEVELS_DB = {"drums": (-2.0, 1.0), "bass": (-3.0, 0.0), "other": (-3.0, 0.0), "vocals": (-2.0, 1.0)}

# A song is named by one word of each.
FIRST_WORDS = (
    "Amber Ancient Autumn Azure Bitter Bright Broken Copper Crimson Crystal Distant Early Electric Faded Gentle Golden "
    "Hidden Hollow Ivory Lonely Midnight Paper Quiet Restless Scarlet Silver Sleeping Velvet Violet Wandering Winter "
    "Wooden"
)
SECOND_WORDS = (
    "Anchor Avenue Bridge Candle Canyon Carousel Cathedral Compass Daylight Dream Engine Feather Forest Garden Harbour "
    "Horizon Island Lantern Machine Meadow Mirror Mountain Orchard Parade River Satellite Season Signal Station Summer "
    "Thunder Window"
)


def demo_songs_path() -> pathlib.Path:
    """Returns the folder of the demo songs in the cache, and synthesises them on first use.

    Raises:
        UserError: the cache cannot be written.
    """
    seed, song_seconds = 0, 20.0
    counts = "-".join(str(NUM_SONGS[split]) for split in SPLITS)
    name = f"demo-songs-v{GENERATOR_VERSION}-seed{seed}-{sounds.SAMPLE_RATE}hz-{song_seconds:g}s-{counts}"
    folder = cache_path() / name
    if not folder.is_dir():
        synthesize_songs(folder, seed=seed, song_seconds=song_seconds, num_songs=NUM_SONGS)
    return folder


def demo_test_song() -> pathlib.Path:
    """The folder of a demo song that no training has heard."""
    return min(path for path in (demo_songs_path() / "test").iterdir() if path.is_dir())


def synthesize_songs(
    destination: pathlib.Path, *, seed: int, song_seconds: float, num_songs: Mapping[str, int]
) -> None:
    """Writes the songs beside `destination` and renames them into place, so that the data set is never incomplete.

    One seed gives the same bytes on one machine with one version of NumPy, and a song does not change when others are
    added. Where another process makes the same folder meanwhile, the first one to be done stays.

    Args:
        destination: the folder to make.
        seed: not negative.
        song_seconds: length of every song, at least 4.
        num_songs: number of songs by split; there are names for 341 in each.

    Raises:
        UserError: `destination` cannot be written.
    """
    total = sum(num_songs.values())
    with (
        whole_folder(destination) as folder,
        progress_bar("synthesising the demo songs", total=total, unit="songs") as advance,
    ):
        for split, count in num_songs.items():
            for index in range(count):
                stems = _synthesize_song(seed, split, index, song_seconds)
                _write_song(folder / split / _song_name(seed, split, index), stems)
                advance(1)


def _song_name(seed: int, split: str, index: int) -> str:
    """Returns the name of a song, which no other song of any split has."""
    names = [f"{first} {second}" for first in FIRST_WORDS.split() for second in SECOND_WORDS.split()]
    order = np.random.default_rng(seed).permutation(len(names))
    return names[order[index * len(SPLITS) + SPLITS.index(split)]]


def _synthesize_song(seed: int, split: str, index: int, song_seconds: float) -> dict[str, np.ndarray]:
    """Returns the stems `[num_samples, 2]` int16; the peak of their sum, or of the loudest of them, is `PEAK`."""
    song_rng, *stem_rngs = np.random.default_rng([seed, SPLITS.index(split), index]).spawn(1 + len(STEMS))
    score = Score(song_rng, split=split, song_seconds=song_seconds)
    stems = {}
    for stem, rng in zip(STEMS, stem_rngs, strict=True):
        sound = PLAYERS[stem](score, rng)
        sound *= _gate(score, stem)[:, None]
        sound /= sounds.rms(sound)
        # Like tape: peaks that stand far out are rounded.
        sound = HEADROOM * np.tanh(sound / HEADROOM)
        stems[stem] = sound * np.float32(10 ** (rng.uniform(*LEVELS_DB[stem]) / 20))
    loudest = float(max(np.abs(sound).max() for sound in (sum(stems.values()), *stems.values())))
    gain = PEAK * 32767 / loudest
    return {stem: np.round(sound * gain).astype(np.int16) for stem, sound in stems.items()}


def _gate(score: Score, stem: str) -> np.ndarray:
    """Returns what silences a stem one step after each of its stretches: `[num_samples]` float32, 0 to 1."""
    gate = np.zeros(score.num_samples, np.float32)
    tail = int(score.step_samples)
    for first, end in score.stretches[stem]:
        start, stop = score.sample_at(first), score.sample_at(end)
        gate[start:stop] = 1
        ringing = gate[stop : stop + tail]
        ringing[:] = np.linspace(1, 0, tail, dtype=np.float32)[: len(ringing)]
    return gate


def _write_song(folder: pathlib.Path, stems: Mapping[str, np.ndarray]) -> None:
    """Writes the stems and their sum."""
    folder.mkdir(parents=True)
    mixture = sum(stem.astype(np.int32) for stem in stems.values()).astype(np.int16)
    for name, samples in {"mixture": mixture, **stems}.items():
        with wave.open(str(folder / f"{name}.wav"), "wb") as file:
            file.setparams((samples.shape[1], samples.itemsize, sounds.SAMPLE_RATE, 0, "NONE", "not compressed"))
            file.writeframes(samples.tobytes())
