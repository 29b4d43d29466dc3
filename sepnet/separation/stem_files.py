"""The files that a song's stems are written to: formats, one common gain, whole or not at all."""

import dataclasses
import fractions
import io
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np
import soundfile

from pipelines.audio.reading import AudioInfo
from pipelines.errors import UserError
from pipelines.songs.layouts import MIXTURE, STEM_STREAMS, STEM_SUFFIX
from sepnet.separation.sample_streams import resample

BLOCK_SAMPLES = 1 << 18
# What a WAV's header can tell of, less more than it takes itself.
WAV_LIMIT_BYTES = (1 << 32) - (1 << 10)
BYTES_OF_VALUE = {"PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}
FLOAT_ENCODINGS = ("FLOAT", "DOUBLE")
OPUS_RATES = (8000, 12_000, 16_000, 24_000, 48_000)
STEM_MP4 = STEM_SUFFIX.removeprefix(".")
AAC_BITS_PER_SECOND = 256_000
# For each channel.
OPUS_BITS_PER_SECOND = 64_000


class Format(NamedTuple):
    """A format by libsndfile's names; `encodings` are those that it can hold, the plainest first."""

    container: str
    encodings: tuple[str, ...]

    def encoding_for(self, encoding: str) -> str:
        """A song's own encoding if it can be held; else the first, and of more than 16 bits the last."""
        if encoding in self.encodings:
            return encoding
        return self.encodings[-1 if encoding in DEEP_ENCODINGS else 0]


FORMATS = {
    "wav": Format("WAV", ("PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")),
    "flac": Format("FLAC", ("PCM_16", "PCM_24")),
    "mp3": Format("MP3", ("MPEG_LAYER_III",)),
    "opus": Format("OGG", ("OPUS",)),
}
FORMAT_NAMES = (*FORMATS, STEM_MP4)
DEEP_ENCODINGS = ("PCM_24", "PCM_32", "FLOAT", "DOUBLE")
LOSSLESS_FORMATS = ("wav", "flac")
# libsndfile leaves it to its callers that Opus orders channels as Vorbis does: by number of channels, where each comes
# from in the order of WAV. Others are alike.
VORBIS_ORDER = {
    3: [0, 2, 1],
    5: [0, 2, 1, 3, 4],
    6: [0, 2, 1, 4, 5, 3],
    7: [0, 2, 1, 5, 6, 4, 3],
    8: [0, 2, 1, 6, 7, 4, 5, 3],
}


class StemFiles:
    """Takes the blocks of a song's stems, then writes the files, all with the one gain that keeps the loudest whole.

    The gain is known only at the end, so the stems wait in the folder as raw floats.
    """

    def __init__(self, folder: pathlib.Path, info: AudioInfo, names: Sequence[str]):
        self._folder = folder
        self._info = info
        self._names = list(names)
        # A model may call its stems anything.
        self._paths = {name: folder / f"{index}" for index, name in enumerate(names)}
        self._files = {name: path.with_suffix(".raw").open("w+b") for name, path in self._paths.items()}
        self._peak = 0.0

    def __enter__(self) -> "StemFiles":
        return self

    def __exit__(self, *exception) -> None:
        for file in self._files.values():
            file.close()

    def write(self, stems: Mapping[str, np.ndarray]) -> None:
        """Takes a block, float32 `[num_samples, num_channels]`, of each stem."""
        for name, file in self._files.items():
            block = np.ascontiguousarray(stems[name], np.float32)
            if block.size:
                self._peak = max(self._peak, float(block.max()), -float(block.min()))
                file.write(block)

    def finish(self, format_name: str) -> tuple[list[pathlib.Path], float]:
        """Writes the files.

        Args:
            format_name: one of `FORMAT_NAMES`.

        Returns:
            The files in the folder, in the order of the names (one for all with "stem.mp4"), and the common gain.

        Raises:
            OSError: the disk is full.
        """
        encoding = None if format_name == STEM_MP4 else FORMATS[format_name].encoding_for(self._info.encoding)
        gain = 1 / self._peak if self._peak > 1 and encoding not in FLOAT_ENCODINGS else 1.0
        if format_name == STEM_MP4:
            path = self._folder / STEM_MP4
            with path.open("w+b") as file:
                _write_stem_mp4(file, self._info, {name: self._blocks(name, gain) for name in self._names})
            return [path], gain
        written = []
        for name in self._names:
            path = self._paths[name].with_suffix(f".{format_name}")
            num_values = self._files[name].seek(0, 2) // BYTES_OF_VALUE["FLOAT"]
            blocks = self._blocks(name, gain)
            with path.open("w+b") as file:
                _write_sound(file, self._info, FORMATS[format_name].container, encoding, num_values, blocks)
            # Only one stem lies there twice.
            self._files[name].truncate(0)
            written.append(path)
        return written, gain

    def _blocks(self, name: str, gain: float) -> Iterator[np.ndarray]:
        file, num_channels = self._files[name], self._info.num_channels
        file.seek(0)
        while True:
            block = np.fromfile(file, np.float32, BLOCK_SAMPLES * num_channels)
            if not block.size:
                return
            yield block.reshape(-1, num_channels) if gain == 1 else block.reshape(-1, num_channels) * np.float32(gain)


def check_format(format_name: str, info: AudioInfo) -> None:
    """Raises a `UserError`, before a song is separated, if a format of `FORMAT_NAMES` cannot hold its stems."""
    if not _can_hold(format_name, info):
        channels = "1 channel" if info.num_channels == 1 else f"{info.num_channels} channels"
        others = " or ".join(name for name in LOSSLESS_FORMATS if _can_hold(name, info))
        remedy = f"take --format {others}" if others else "no format can: convert the song to a usual rate first"
        raise UserError(f"{format_name} cannot hold {channels} at {info.sample_rate} Hz; {remedy}")


def _can_hold(format_name: str, info: AudioInfo) -> bool:
    import av

    silence = np.zeros((1, info.num_channels), np.float32)
    try:
        if format_name == STEM_MP4:
            # As many as all of its readers know.
            if info.num_channels > 2:
                return False
            _write_stem_mp4(io.BytesIO(), info, {MIXTURE: [silence]})
        else:
            kind = FORMATS[format_name]
            encoding = kind.encoding_for(info.encoding)
            _write_sound(io.BytesIO(), info, kind.container, encoding, 0, [silence])
    except (soundfile.LibsndfileError, av.FFmpegError, ValueError):
        return False
    return True


def stream_wav(file: BinaryIO, info: AudioInfo, blocks: Iterable[np.ndarray]) -> None:
    """Writes a WAV of 32-bit floats into a pipe: its header says that the length is not known."""
    import av

    output = _Output(file)
    with av.open(output, "w", format="wav") as container:
        writer = _Track(container, "pcm_f32le", info)
        for block in blocks:
            writer.write(block)
            output.check()
            file.flush()
        writer.close()
    output.check()


def encode_clip(samples: np.ndarray, sample_rate: int, format_name: str) -> tuple[bytes, int]:
    """Encodes a clip in memory: the same samples give the same bytes.

    Args:
        samples: float32 `[num_samples, num_channels]`, full scale ±1; FLAC cuts what is louder.
        sample_rate: Hz.
        format_name: "flac", which has 16 bits, or "opus".

    Returns:
        The file, and its rate in Hz, which is another one where Opus does not know the clip's.

    Raises:
        UserError: there are more than 2 channels, of which Opus files keep no plain order.
    """
    import av

    info = AudioInfo(sample_rate, samples.shape[1], len(samples), "PCM_16", format_name.upper())
    file = io.BytesIO()
    if format_name != "opus":
        kind = FORMATS[format_name]
        _write_sound(file, info, kind.container, kind.encoding_for(info.encoding), 0, [samples])
        return file.getvalue(), sample_rate
    if info.num_channels > 2:
        raise UserError(f"clips in Opus have 1 or 2 channels, and these {info.num_channels}; take flac")
    if sample_rate not in OPUS_RATES:
        blocks = list(resample([samples], sample_rate, OPUS_RATES[-1], info.num_channels))
        samples = np.concatenate(blocks)
        info = dataclasses.replace(info, sample_rate=OPUS_RATES[-1])
    # libsndfile's Ogg begins with a number that is drawn by the clock.
    with av.open(file, "w", format="ogg", options={"fflags": "+bitexact"}) as container:
        track = _Track(container, "libopus", info, OPUS_BITS_PER_SECOND * info.num_channels, "flt")
        track.write(samples)
        track.close()
    return file.getvalue(), info.sample_rate


def _write_sound(
    file: BinaryIO, info: AudioInfo, container: str, encoding: str, num_values: int, blocks: Iterable[np.ndarray]
) -> None:
    rate = info.sample_rate
    if encoding == "OPUS" and rate not in OPUS_RATES:
        rate = OPUS_RATES[-1]
        blocks = resample(blocks, info.sample_rate, rate, info.num_channels)
    if container == "WAV" and num_values * BYTES_OF_VALUE[encoding] > WAV_LIMIT_BYTES:
        # A WAV without the limit of 4 GB.
        container = "RF64"
    order = VORBIS_ORDER.get(info.num_channels) if encoding == "OPUS" else None
    output = _SeekableOutput(file)
    with soundfile.SoundFile(output, "w", rate, info.num_channels, encoding, format=container) as writer:
        for block in blocks:
            # Like libsndfile's own conversion, in a third of the time.
            samples = _to_int16(block) if encoding == "PCM_16" else block
            writer.write(samples if order is None else samples[:, order])
            output.check()
    output.check()
    file.flush()


def _to_int16(block: np.ndarray) -> np.ndarray:
    scaled = block * np.float32(32_768)
    np.rint(scaled, out=scaled)
    return np.clip(scaled, -32_768, 32_767, out=scaled).astype(np.int16)


def _write_stem_mp4(file: BinaryIO, info: AudioInfo, stems: Mapping[str, Iterable[np.ndarray]]) -> None:
    """Writes one MP4 with a stream of AAC for the mixture and each stem, as MUSDB18 has them."""
    import av

    order = [name for name in STEM_STREAMS if name in stems]
    order += [name for name in stems if name not in order]
    output = _SeekableOutput(file)
    with av.open(output, "w", format="mp4") as container:
        tracks = {name: _Track(container, "aac", info, AAC_BITS_PER_SECOND) for name in order}
        for name, track in tracks.items():
            # The one name of a stream that MP4 keeps and players show.
            track.stream.metadata["handler_name"] = name
        for blocks in zip(*(stems[name] for name in order), strict=True):
            for track, block in zip(tracks.values(), blocks, strict=True):
                track.write(block)
            output.check()
        for track in tracks.values():
            track.close()
    output.check()
    file.flush()


class _Track:
    """An audio stream of a container that PyAV writes."""

    def __init__(
        self,
        container,
        codec: str,
        info: AudioInfo,
        bits_per_second: int | None = None,
        sample_format: str | None = None,
    ):
        self._container = container
        self._layout = {1: "mono", 2: "stereo"}.get(info.num_channels, f"{info.num_channels} channels")
        self._rate = info.sample_rate
        self._num_samples = 0
        self.stream = container.add_stream(codec, rate=info.sample_rate, layout=self._layout)
        if sample_format:
            self.stream.format = sample_format
        self._format = self.stream.format.name
        if bits_per_second:
            self.stream.bit_rate = bits_per_second

    def write(self, block: np.ndarray) -> None:
        import av

        samples = block.T if self._format.endswith("p") else block.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), self._format, self._layout)
        frame.sample_rate = self._rate
        # With its time given, the codec's padding at the front is marked as such.
        frame.pts, frame.time_base = self._num_samples, fractions.Fraction(1, self._rate)
        self._num_samples += len(block)
        self._mux(frame)

    def close(self) -> None:
        self._mux(None)

    def _mux(self, frame) -> None:
        for packet in self.stream.encode(frame):
            self._container.mux(packet)


class _Output:
    """A pipe that PyAV writes to: what its callbacks raise would be lost, so it is kept until it is asked for."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self._error: OSError | None = None

    def write(self, data: bytes) -> int:
        if self._error is None:
            try:
                self._file.write(data)
            except OSError as error:
                self._error = error
        return len(data)

    def check(self) -> None:
        """Raises what went wrong since the beginning."""
        if self._error is not None:
            raise self._error


class _SeekableOutput(_Output):
    """A file that soundfile or PyAV writes to."""

    def __init__(self, file: BinaryIO):
        super().__init__(file)
        self.seek, self.tell, self.read = file.seek, file.tell, file.read
