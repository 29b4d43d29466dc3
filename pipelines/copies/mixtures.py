"""Fixed mixtures of recordings that are held out: songs like any other, made once, to validate and to test on.

They depend on the recordings and on the range of their signal-to-noise ratios, and on no seed.
"""

import hashlib
import itertools
import json
import os
import pathlib
import wave
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from pipelines.audio.channels import match_channels
from pipelines.audio.decoding import decoding
from pipelines.cache import MOST_CHARACTERS, cache_path
from pipelines.copies.convert import FORMAT_VERSION, FULL_SCALE
from pipelines.files import folder_lock, remove_leftovers, stamp, whole_folder
from pipelines.songs.layouts import Track
from pipelines.songs.recordings import SHARES, SourceFile

MIXTURE_SECONDS = 10
MOST_MIXTURES = 60
MANIFEST = "mixtures.json"


def fixed_mixtures(
    root: pathlib.Path,
    tracks: Mapping[SourceFile, Track],
    *,
    stems: Sequence[str],
    num_first: int,
    num_channels: int,
    snr_db: tuple[float, float],
) -> pathlib.Path:
    """Returns a folder of mixtures in the layout of MUSDB18-HQ, kept in the cache folder, made or renewed if need be.

    Args:
        root: folder of the recordings.
        tracks: the recordings, all of one rate, in the order in which they are used; those in training are not.
        stems: names of the stems.
        num_first: how many of the stems, from the first on, are the signal; the others are the noise.
        num_channels: of the mixtures.
        snr_db: the lowest and the highest signal-to-noise ratio, over which they are spread evenly.
    """
    sample_rate = next(iter(tracks.values())).sample_rate
    settings = [str(root.resolve()), list(stems), num_first, sample_rate, num_channels, snr_db, FORMAT_VERSION]
    key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:8]
    folder = cache_path() / "mixtures" / f"{root.resolve().name[:MOST_CHARACTERS]}-{key}"
    with folder_lock(folder) as locked:
        if locked:
            remove_leftovers(folder)
        for split in SHARES:
            held_out = {recording: track for recording, track in tracks.items() if recording.split == split}
            made_from = {recording.name: stamp(recording.path) for recording in held_out}
            if _made_from(folder / split) == made_from:
                continue
            with whole_folder(folder / split, replaces=True) as temporary:
                _write_mixtures(temporary, split, list(held_out.values()), stems, num_first, num_channels, snr_db)
                (temporary / MANIFEST).write_text(json.dumps(made_from))
    return folder


def _made_from(folder: pathlib.Path) -> dict | None:
    """Reads the record of what the mixtures in a folder were made from; None where there are none."""
    try:
        return json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return None


def _write_mixtures(
    folder: pathlib.Path,
    split: str,
    tracks: Sequence[Track],
    stems: Sequence[str],
    num_first: int,
    num_channels: int,
    snr_db: tuple[float, float],
) -> None:
    by_stem = [[track for track in tracks if stem in track.files] for stem in stems]
    rate = tracks[0].sample_rate
    num_samples = MIXTURE_SECONDS * rate
    count = min(max(sum(track.num_samples for track in by_stem[0]) // num_samples, 1), MOST_MIXTURES)
    # The middles of equal parts of the range.
    ratios_db = np.linspace(*snr_db, 2 * count + 1)[1::2]
    parts = [_in_turn(files, num_samples, num_channels) for files in by_stem]
    for number, (ratio_db, *samples) in enumerate(zip(ratios_db, *parts, strict=False), 1):
        place = folder / f"{split} {number:03}"
        place.mkdir()
        for stem, written in zip(stems, _mix(np.stack(samples), num_first, ratio_db), strict=True):
            # As of copies: libsndfile would not name the cause where the disk is full.
            with wave.open(str(place / f"{stem}.wav"), "wb") as file:
                file.setparams((num_channels, 2, rate, 0, "NONE", "not compressed"))
                file.writeframes(written.astype("<i2").tobytes())


def _in_turn(tracks: Sequence[Track], num_samples: int, num_channels: int) -> Iterator[np.ndarray]:
    """Yields stretches `[num_samples, num_channels]` of recordings that follow each other, without end.

    Of a long one, no more is taken at a time than fills a stretch: it goes on when all others had their turn.
    """
    import soundfile

    turns = sorted(
        (start, index) for index, track in enumerate(tracks) for start in range(0, track.num_samples, num_samples)
    )
    waiting = np.zeros((0, num_channels), np.float32)
    for start, index in itertools.cycle(turns):
        [path] = tracks[index].files.values()
        with decoding(str(path)):
            samples, _ = soundfile.read(os.fsencode(path), num_samples, start, dtype="float32", always_2d=True)
        waiting = np.concatenate([waiting, match_channels(samples, num_channels)])
        if len(waiting) >= num_samples:
            yield waiting[:num_samples]
            waiting = waiting[num_samples:]


def _mix(stems: np.ndarray, num_first: int, snr_db: float) -> np.ndarray:
    """Makes the noise as loud as the ratio says, where neither is silent, and all softer where they would clip.

    Args:
        stems: float `[num_stems, num_samples, num_channels]`, full scale ±1.

    Returns:
        The same as int16.
    """
    stems = stems.astype(np.float64)
    signal, noise = (np.square(part.sum(axis=0)).sum() for part in (stems[:num_first], stems[num_first:]))
    if signal and noise:
        stems[num_first:] *= np.sqrt(signal / noise) * 10 ** (-snr_db / 20)
    # Rounding may add half a step to each.
    largest = 1 - (1 + len(stems)) / FULL_SCALE
    peak = max(np.abs(stems).max(), np.abs(stems.sum(axis=0)).max())
    return np.rint(stems * (FULL_SCALE * largest / max(peak, largest))).astype(np.int16)
