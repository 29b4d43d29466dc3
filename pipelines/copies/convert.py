"""One song to 16-bit WAV: its stems read in equal steps, resampled and written, beside what they were made from."""

import contextlib
import dataclasses
import functools
import json
import pathlib
import wave
from collections.abc import Mapping, Sequence

import numpy as np

from pipelines.audio import reading
from pipelines.files import whole_folder
from pipelines.songs.layouts import MIXTURE, Probe, Song, SongError, read_track
from pipelines.workers import Advance

# Part of every manifest and of the cached copies' names; raise it when the same source would give other samples.
FORMAT_VERSION = 1
MANIFEST = "prepared.json"
FULL_SCALE = 32768


@dataclasses.dataclass(frozen=True)
class Conversion:
    """A song and the folder that its copy is written to.

    Attributes:
        source_files: size in bytes and modification time in nanoseconds of the song's files, by name.
        stems: header of each file or stream, by stem.
        sample_rate: Hz, of the copy.
    """

    song: Song
    target: pathlib.Path
    source_files: Mapping[str, Sequence[int]]
    stems: Mapping[str, reading.AudioInfo]
    sample_rate: int

    @property
    def seconds(self) -> float:
        return max(info.num_samples / info.sample_rate for info in self.stems.values())

    @property
    def stem_bytes(self) -> list[int]:
        return [
            round(info.num_samples * self.sample_rate / info.sample_rate) * info.num_channels * 2
            for info in self.stems.values()
        ]


def probe_song(song: Song, probe: Probe) -> dict[str, reading.AudioInfo]:
    """Reads the headers of all stems of a song, by `probe`.

    Raises:
        SongError: a file cannot be read, stems differ in rate or length, or some are missing that should be there.
    """
    if not song.made_stems:
        probe = functools.cache(probe)
        track = read_track(song, [stem for stem in song.files() if stem != MIXTURE], probe)
        return {stem: probe(path) for stem, path in track.files.items()}
    return song.headers(probe)


def probe_copy(path: pathlib.Path) -> reading.AudioInfo:
    """Reads the header of a file that `convert_song` has written, which takes FFmpeg a hundred times as long."""
    with wave.open(str(path)) as file:
        return reading.AudioInfo(file.getframerate(), file.getnchannels(), file.getnframes(), "PCM_16", "WAV")


def convert_song(conversion: Conversion, advance: Advance) -> tuple[dict[str, int], list[str]]:
    """Converts a song; returns how many samples were cut to full scale, by stem, and what could not be decoded.

    An old copy stays until the new one is done.

    Raises:
        SongError: the song cannot be decoded, its stems differ in length, or it holds NaN or infinity.
        UserError: the copy cannot be written.
    """
    song, rate = conversion.song, conversion.sample_rate
    remarks: list[str] = []
    source_rate = next(iter(conversion.stems.values())).sample_rate
    with whole_folder(conversion.target, replaces=True) as folder:
        with contextlib.ExitStack() as stack:
            writers = {
                # The standard library writes, since it names the cause, as a full disk; libsndfile says "System error".
                stem: _Writer(stack.enter_context(wave.open(str(folder / f"{stem}.wav"), "wb")), info, rate)
                for stem, info in conversion.stems.items()
            }
            for block in song.blocks(list(conversion.stems), remarks.append):
                for stem, samples in block.items():
                    if not np.isfinite(samples).all():
                        raise SongError(
                            f"{song} has samples in {stem} that are no numbers (NaN or infinite); "
                            "render that file again"
                        )
                    writers[stem].write(samples)
                advance(len(samples) / source_rate)
            for writer in writers.values():
                writer.finish()
        if not all(writer.num_samples for writer in writers.values()):
            raise SongError(f"{song} is too short for one sample at {rate} Hz; remove it or put its audio back")
        clipped = {stem: writer.num_clipped for stem, writer in writers.items()}
        manifest = {
            "format_version": FORMAT_VERSION,
            "source_files": conversion.source_files,
            "source_sample_rate": source_rate,
            "sample_rate": rate,
            "clipped_samples": clipped,
            "undecoded": remarks,
        }
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    return clipped, remarks


class _Writer:
    """Writes float32 samples to a 16-bit WAV, resampled on the way."""

    def __init__(self, file: wave.Wave_write, info: reading.AudioInfo, sample_rate: int):
        file.setparams((info.num_channels, 2, sample_rate, 0, "NONE", "not compressed"))
        self.num_samples = self.num_clipped = 0
        self._file = file
        self._resampler = None
        if sample_rate != info.sample_rate:
            import soxr

            self._resampler = soxr.ResampleStream(info.sample_rate, sample_rate, info.num_channels, "float32", "HQ")

    def write(self, samples: np.ndarray, *, last: bool = False) -> None:
        """Writes samples, float32 `[num_samples, num_channels]`, full scale ±1; none follow the last."""
        if self._resampler:
            samples = self._resampler.resample_chunk(np.ascontiguousarray(samples), last=last)
        self.num_samples += len(samples)
        scaled = np.rint(samples * FULL_SCALE)
        self.num_clipped += int(np.count_nonzero((scaled < -FULL_SCALE) | (scaled >= FULL_SCALE)))
        self._file.writeframesraw(np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1).astype("<i2").tobytes())

    def finish(self) -> None:
        """Writes what the resampler still holds."""
        if self._resampler:
            self.write(np.zeros((0, self._file.getnchannels()), np.float32), last=True)
