"""Audio files and streams, read block by block: libsndfile first, PyAV for MP3 and what libsndfile does not know."""

import contextlib
import dataclasses
import io
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator

import numpy as np
import soundfile

from pipelines.errors import UserError

BLOCK_SAMPLES = 1 << 18
# Encoders of AAC pad the last frame, and decoders may drop or keep the first: two frames of the longest kind.
PADDING_SAMPLES = 4096
# Formats, by PyAV's names, that say how long they are; others leave it to a guess from the bit rate.
FORMATS_WITH_LENGTH = {"mp3", "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "flac", "wav"}
# How files begin that can be read from the front.
STREAMED = (b"RIFF", b"RF64", b"fLaC", b"OggS")
# What is taken for audio in a folder of all sorts of files.
SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("wav", "w64", "rf64", "flac", "mp3", "mp2", "ogg", "oga", "opus", "m4a", "m4b", "mp4", "aac", "aif", "aiff"),
        *("aifc", "au", "caf", "wma", "wv", "ape", "tta", "ac3", "mka", "mkv", "webm", "mov", "avi", "3gp"),
    )
)


@dataclasses.dataclass(frozen=True)
class AudioInfo:
    """What a file's header says.

    Attributes:
        sample_rate: Hz.
        num_channels: audio channels.
        num_samples: length for each channel; for compressed formats it is what the header claims.
        encoding: libsndfile's subtype ("PCM_16", "FLOAT"), or the codec's name where PyAV reads the file.
        container: libsndfile's format ("WAV", "FLAC"), or "PYAV".
    """

    sample_rate: int
    num_channels: int
    num_samples: int
    encoding: str
    container: str


def probe(path: pathlib.Path) -> AudioInfo:
    """Reads the header of an audio file.

    Raises:
        UserError: the file does not exist, cannot be opened, is no audio, or is a FLAC that breaks off.
    """
    check_readable(path)
    if path.suffix.lower() == ".mp3":
        # PyAV knows the length of MP3 files better, and libsndfile's decoder writes to the terminal.
        return _probe_with_pyav(path)
    try:
        file = soundfile.SoundFile(str(path))
    except soundfile.LibsndfileError:
        return _probe_with_pyav(path)
    with file:
        # A truncated WAV is as long as the samples that are left; a FLAC claims the length that it had.
        if file.format == "FLAC" and file.frames:
            try:
                file.seek(file.frames - 1)
            except soundfile.LibsndfileError as error:
                raise UserError(f"{path} breaks off before its end; put a complete file in its place") from error
        # RIFX is a WAV of the other byte order, which only libsndfile reads.
        container = "RIFX" if (file.format, file.endian) == ("WAV", "BIG") else file.format
        return AudioInfo(file.samplerate, file.channels, file.frames, file.subtype, container)


def read_blocks(path: pathlib.Path, block_samples: int = BLOCK_SAMPLES) -> Iterator[np.ndarray]:
    """Yields a file's samples in order, float32 `[num_samples, num_channels]`, full scale ±1.

    Every block but the last holds `block_samples` samples, so memory does not grow with the file.

    Raises:
        UserError: the file does not exist, is no audio, or breaks off in the middle.
    """
    container = probe(path).container
    chunks = _decode_with_pyav(path) if container == "PYAV" else _decode_with_libsndfile(path, block_samples)
    yield from _in_blocks(chunks, block_samples)


@contextlib.contextmanager
def open_stream(file: io.BufferedReader, name: str) -> Iterator[tuple[AudioInfo, Iterator[np.ndarray]]]:
    """Reads audio that comes through a pipe.

    WAV, FLAC and Ogg are read as they come. Other formats keep what belongs to their first samples at the end of the
    file, or need it to know their length; they are read whole into a temporary file first.

    Args:
        file: audio in any format that PyAV reads.
        name: what errors call it.

    Yields:
        What its header says (`num_samples` is 0 if the length is not known yet), and its samples as `read_blocks` gives
        them.

    Raises:
        UserError: it is no audio, or breaks off in the middle.
    """
    import av

    if file.peek(4)[:4] not in STREAMED:
        with tempfile.NamedTemporaryFile() as copy:
            shutil.copyfileobj(file, copy)
            copy.flush()
            path = pathlib.Path(copy.name)
            with _called(path, name):
                check_readable(path)
                yield _probe_with_pyav(path), _decode_with_pyav(path)
        return
    with _decoding(name), av.open(file, "r") as container:
        stream = _first_audio_stream(container, name)
        info = dataclasses.replace(_stream_info(stream, container), num_samples=0)
        yield info, _frames(container, stream)


@contextlib.contextmanager
def _called(path: pathlib.Path, name: str) -> Iterator[None]:
    """Says `name` in errors instead of a path that means nothing to the user."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace(str(path), name)) from error


def _in_blocks(chunks: Iterable[np.ndarray], block_samples: int) -> Iterator[np.ndarray]:
    pending: list[np.ndarray] = []
    num_pending = 0
    for chunk in chunks:
        pending.append(chunk)
        num_pending += len(chunk)
        while num_pending >= block_samples:
            joined = np.concatenate(pending)
            yield joined[:block_samples]
            pending = [joined[block_samples:]]
            num_pending = len(pending[0])
    if num_pending:
        yield np.concatenate(pending)


def probe_streams(path: pathlib.Path) -> list[AudioInfo]:
    """Reads the header of every audio stream of a file, in order; a cover picture is passed over.

    Raises:
        UserError: the file does not exist, or cannot be opened.
    """
    import av

    check_readable(path)
    with _decoding(path), av.open(str(path)) as container:
        return [_stream_info(stream, container) for stream in container.streams.audio]


def read_streams(path: pathlib.Path, block_samples: int = BLOCK_SAMPLES) -> Iterator[list[np.ndarray]]:
    """Yields the samples of all audio streams of a file, decoded in one pass.

    Streams that differ in length by the padding of their codec are cut to the shortest, as stempeg cuts them.

    Yields:
        One array for each stream, float32 `[num_samples, num_channels]`, full scale ±1. All have the same
        `num_samples`, which is `block_samples` in every block but the last.

    Raises:
        UserError: the file cannot be opened, breaks off in the middle, or its streams differ in length.
    """
    import av

    check_readable(path)
    with _decoding(path), av.open(str(path)) as container:
        streams = container.streams.audio
        if not streams:
            raise UserError(f"{path} holds no audio stream")
        resamplers = {stream.index: av.AudioResampler(format="fltp") for stream in streams}
        fifos = {stream.index: av.AudioFifo() for stream in streams}
        for packet in container.demux(streams):
            index = packet.stream.index
            for frame in packet.decode():
                for planar in resamplers[index].resample(frame):
                    # A file with a gap in its time stamps is decoded without the gap, as ffmpeg does.
                    planar.pts = None
                    fifos[index].write(planar)
            while min(fifo.samples for fifo in fifos.values()) >= block_samples:
                yield [fifo.read(block_samples).to_ndarray().T for fifo in fifos.values()]
        num_decoded = [fifo.samples_written for fifo in fifos.values()]
        claimed = [_stream_info(stream, container).num_samples for stream in streams]
        if any(decoded < length - PADDING_SAMPLES for decoded, length in zip(num_decoded, claimed, strict=True)):
            raise UserError(
                f"{path} breaks off after {min(num_decoded)} of {max(claimed)} samples; "
                "put a complete file in its place"
            )
        if max(num_decoded) - min(num_decoded) > PADDING_SAMPLES:
            listed = ", ".join(map(str, num_decoded))
            raise UserError(f"{path} has streams of different lengths ({listed} samples); make them equal")
        num_left = min(fifo.samples for fifo in fifos.values())
        if num_left:
            yield [fifo.read(num_left).to_ndarray().T for fifo in fifos.values()]


def check_readable(path: pathlib.Path) -> None:
    """Raises a `UserError` unless `path` is a file that can be opened."""
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise UserError(f"{path} is empty; expected an audio file")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; expected an audio file") from error


def _decode_with_libsndfile(path: pathlib.Path, block_samples: int) -> Iterator[np.ndarray]:
    try:
        with soundfile.SoundFile(str(path)) as file:
            yield from file.blocks(block_samples, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise UserError(f"cannot decode {path}: {error}; expected a complete audio file") from error


def _probe_with_pyav(path: pathlib.Path) -> AudioInfo:
    import av

    with _decoding(path), av.open(str(path)) as container:
        return _stream_info(_first_audio_stream(container, path), container)


def _decode_with_pyav(path: pathlib.Path) -> Iterator[np.ndarray]:
    import av

    with _decoding(path), av.open(str(path)) as container:
        stream = _first_audio_stream(container, path)
        claimed = _stream_info(stream, container).num_samples
        num_decoded = 0
        for chunk in _frames(container, stream):
            num_decoded += len(chunk)
            yield chunk
        if container.format.name in FORMATS_WITH_LENGTH and num_decoded < claimed - PADDING_SAMPLES:
            raise UserError(
                f"{path} breaks off after {num_decoded / stream.rate:.1f} of {claimed / stream.rate:.1f} s; "
                "put a complete file in its place"
            )


def _frames(container, stream) -> Iterator[np.ndarray]:
    import av

    resampler = av.AudioResampler(format="fltp")
    for frame in container.decode(stream):
        for planar in resampler.resample(frame):
            yield planar.to_ndarray().T


@contextlib.contextmanager
def _decoding(path: pathlib.Path | str) -> Iterator[None]:
    import av

    try:
        yield
    except (av.FFmpegError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"cannot decode {path}: {reason[0].lower()}{reason[1:]}; "
            "it is no audio file, or not a complete one: put a good copy in its place"
        ) from error


def _stream_info(stream, container) -> AudioInfo:
    import av

    # The container knows the length in microseconds where the stream does not.
    seconds = (
        float(stream.duration * stream.time_base)
        if stream.duration is not None
        else (container.duration or 0) / av.time_base
    )
    num_samples = round(seconds * stream.rate)
    return AudioInfo(stream.rate, stream.channels, num_samples, stream.codec_context.name, "PYAV")


def _first_audio_stream(container, path: pathlib.Path | str):
    if not container.streams.audio:
        raise UserError(f"{path} holds no audio stream")
    return container.streams.audio[0]
