"""Audio files and pipes, read block by block: by FFmpeg (PyAV), and by libsndfile what FFmpeg does not know.

A file gives the same samples however it comes: by its path, through a pipe or from a temporary copy. FFmpeg sees its
bytes alone, no name and no address, so a playlist cannot make it open anything else. What cannot be opened, is no audio
or can mostly not be decoded raises a `UserError`.
"""

import contextlib
import dataclasses
import io
import itertools
import math
import os
import pathlib
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import soundfile

from pipelines.audio.decoding import (
    Decoder,
    decodable,
    decoding,
    encoding_of,
    first_stream,
    format_of,
    guessed_length,
    open_container,
    packets,
    reason_of,
    stated_length,
)
from pipelines.audio.ogg import ogg_links
from pipelines.errors import UserError, one_line

BLOCK_SAMPLES = 1 << 18
# Encoders of AAC pad the last frame, and decoders may drop or keep the first: two frames of the longest kind.
PADDING_SAMPLES = 4096
# A file of which more than this share cannot be decoded is refused.
MOST_LOST = 0.5
# First bytes of files that can be read from the front, and their bytes from the ninth on.
STREAMED = ((b"RIFF", b"WAVE"), (b"RF64", b"WAVE"), (b"fLaC", b""), (b"OggS", b""))
# libsndfile's names of formats, and what their encodings begin with, any part of which it reads as FFmpeg would.
RANDOM_ACCESS = {"WAV", "WAVEX", "RF64", "FLAC"}
PLAIN_ENCODINGS = ("PCM_", "FLOAT", "DOUBLE")
# Suffixes of the files that are taken for audio in a folder of all sorts of files.
SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("wav", "w64", "rf64", "aif", "aiff", "aifc", "au", "snd", "caf", "iff", "voc", "dsf", "dff"),
        *("flac", "wv", "ape", "tta", "mp3", "mp2", "mp1", "ogg", "oga", "spx", "opus", "aac", "m4a", "m4b"),
        *("ac3", "eac3", "dts", "wma", "amr", "rm", "mp4", "m4v", "mov", "3gp", "mka", "mkv", "webm"),
        *("avi", "wmv", "flv", "ts", "mpg", "mpeg", "nut"),
    )
)


@dataclasses.dataclass(frozen=True)
class AudioInfo:
    """The format and length that a file's header states.

    Attributes:
        sample_rate: Hz.
        num_channels: audio channels, in the order of WAV.
        num_samples: length for each channel, 0 if nothing is known of it.
        encoding: of samples without loss libsndfile's subtype ("PCM_16", "PCM_24", "FLOAT"), else the codec's name.
        container: libsndfile's name of the format ("WAV", "FLAC") where that reads any part of the file, else FFmpeg's
            ("mov", "ogg").
        is_guess: `num_samples` is what FFmpeg estimates from a bit rate or the like: good for a progress bar.
    """

    sample_rate: int
    num_channels: int
    num_samples: int
    encoding: str
    container: str
    is_guess: bool = False


def say(text: str) -> None:
    """Prints a note on the standard error."""
    print(one_line(text), file=sys.stderr)


@dataclasses.dataclass(frozen=True)
class Recording:
    """A file or a pipe that is open for reading once, from its beginning to its end.

    Attributes:
        decoder: FFmpeg's, where it is read by that.
        remark: what is passed over.
    """

    name: str
    info: AudioInfo
    chunks: Iterable[np.ndarray]
    decoder: Decoder | None = None
    remark: str = ""

    def blocks(self) -> Iterator[np.ndarray]:
        """Yields the samples in order, float32 `[num_samples, num_channels]`, full scale ±1.

        Every block but the last holds `BLOCK_SAMPLES` samples, so memory does not grow with the file.
        """
        num_samples = 0
        for [block] in _in_step(((0, chunk) for chunk in self.chunks), 1):
            num_samples += len(block)
            yield block
        num_lost = 0
        if self.decoder:
            # The header of a WAV is often wrong, and in a pipe FFmpeg does not look at it.
            behind = self.decoder.num_behind + (0 if self.info.container == "wav" else self._num_missing())
            num_lost = self.decoder.num_silent + behind
            num_samples += behind
        if num_lost > MOST_LOST * num_samples:
            raise UserError(f"cannot decode most of {self.name}: {self.remarks()}; put a good copy in its place")
        if not num_samples:
            raise UserError(f"{self.name} holds no samples; put a complete file in its place")

    def remarks(self) -> str:
        """Says what could not be decoded, and what was passed over, once all blocks were read; "" if nothing was."""
        loss = self.decoder.loss(self._num_missing()) if self.decoder else ""
        return "; ".join(filter(None, [loss, self.remark]))

    def _num_missing(self) -> int:
        """Samples that the header states, and that did not come."""
        if self.info.is_guess:
            return 0
        missing = self.info.num_samples - self.decoder.num_samples
        return missing if missing > PADDING_SAMPLES else 0


@contextlib.contextmanager
def open_audio(source: pathlib.Path | io.BufferedReader, name: str = "") -> Iterator[Recording]:
    """Opens a file, a named pipe, or what comes through a pipe.

    From a pipe, WAV, FLAC and Ogg are read as they come. Other formats keep what belongs to their first samples at the
    end, or need it to know their length: they are copied into a temporary file first.

    Args:
        source: audio in any format that FFmpeg or libsndfile reads.
        name: name of the source in errors; by default the path.
    """
    name = name or str(source)
    with decoding(name), contextlib.ExitStack() as stack:
        file = stack.enter_context(_open(source)) if isinstance(source, pathlib.Path) else source
        head = file.peek(12)[:12]
        if not head:
            raise UserError(f"{name} is empty; expected an audio file")
        is_streamed = any(head.startswith(first) and head[8:].startswith(ninth) for first, ninth in STREAMED)
        if not is_streamed and not file.seekable():
            copy = stack.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(file, copy)
            file = copy
            file.seek(0)
        yield _recording(file, name, stack)


def probe(path: pathlib.Path) -> AudioInfo:
    """Reads the header of an audio file."""
    check_readable(path)
    with open_audio(path) as recording:
        return recording.info


def measure(path: pathlib.Path, *, may_guess: bool = False) -> AudioInfo:
    """Finds out exactly how long an audio file is, by decoding it where its header cannot be trusted.

    Args:
        path: any format that FFmpeg or libsndfile reads.
        may_guess: the length of what FFmpeg would have to decode is taken from its header, if that has one.
    """
    check_readable(path)
    with open_audio(path) as recording:
        info = recording.info
        found = _random_access(path) if info.container in ("wav", "flac") else None
        if may_guess and recording.decoder and info.num_samples and not found:
            return dataclasses.replace(info, is_guess=True)
        container, num_samples = found or (info.container, sum(map(len, recording.blocks())))
        return dataclasses.replace(info, container=container, num_samples=num_samples, is_guess=False)


def read_blocks(path: pathlib.Path, *, note: Callable[[str], None] = say) -> Iterator[np.ndarray]:
    """Yields a file's samples, as `Recording.blocks`; what cannot be decoded in the middle is silent.

    Args:
        path: any format that FFmpeg or libsndfile reads.
        note: is called at the end if something could not be decoded, or was passed over; by default it is printed on
            the standard error.
    """
    check_readable(path)
    with open_audio(path) as recording:
        yield from recording.blocks()
        if recording.remarks():
            note(f"{path}: {recording.remarks()}")


def probe_streams(path: pathlib.Path) -> list[AudioInfo]:
    """Reads the header of every audio stream of a file, in order; a cover picture is passed over."""
    check_readable(path)
    with _open(path) as file, decoding(str(path)), open_container(file) as container:
        return [_info(decodable(stream, str(path)), file) for stream in container.streams.audio]


def read_streams(path: pathlib.Path, *, note: Callable[[str], None] = say) -> Iterator[list[np.ndarray]]:
    """Yields the samples of all audio streams of a file, decoded in one pass.

    Streams that differ in length by the padding of their codec are cut to the shortest, as stempeg cuts them.

    Args:
        path: any format that FFmpeg reads.
        note: as of `read_blocks`.

    Yields:
        One array for each stream, float32 `[num_samples, num_channels]`, full scale ±1, all of one `num_samples`.

    Raises:
        UserError: the file cannot be opened, breaks off in the middle, or its streams differ in length.
    """
    check_readable(path)
    with _open(path) as file, decoding(str(path)), open_container(file) as container:
        streams = [decodable(stream, str(path)) for stream in container.streams.audio]
        if not streams:
            raise UserError(f"{path} holds no audio stream")
        infos = [_info(stream, file) for stream in streams]
        decoders = {stream.index: Decoder(stream) for stream in streams}
        places = {index: place for place, index in enumerate(decoders)}

        def chunks() -> Iterator[tuple[int, np.ndarray]]:
            for packet in packets(container, streams, decoders.values()):
                index = packet.stream.index
                yield from ((places[index], chunk) for chunk in decoders[index].decode(packet))
            for index, decoder in decoders.items():
                yield from ((places[index], chunk) for chunk in decoder.flush())
            _check_streams(path, infos, [decoder.num_samples for decoder in decoders.values()])

        yield from _in_step(chunks(), len(streams))
        for number, decoder in enumerate(decoders.values(), 1):
            if decoder.loss():
                note(f"{path}, stream {number}: {decoder.loss()}")


def _check_streams(path: pathlib.Path, infos: Sequence[AudioInfo], num_decoded: Sequence[int]) -> None:
    claimed = [0 if info.is_guess else info.num_samples for info in infos]
    if any(decoded < length - PADDING_SAMPLES for decoded, length in zip(num_decoded, claimed, strict=True)):
        raise UserError(
            f"{path} breaks off after {min(num_decoded)} of {max(claimed)} samples; put a complete file in its place"
        )
    if max(num_decoded) - min(num_decoded) > PADDING_SAMPLES:
        listed = ", ".join(map(str, num_decoded))
        raise UserError(f"{path} has streams of different lengths ({listed} samples); make them equal")
    if not min(num_decoded):
        raise UserError(f"{path} holds no samples; put a complete file in its place")


def is_pipe(path: pathlib.Path) -> bool:
    """Returns True if a path names what can be read only once: a named pipe, a socket, or a shell's `<(...)`."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def check_readable(path: pathlib.Path) -> None:
    """Raises a `UserError` unless `path` is a file that can be opened, and read more than once."""
    if is_pipe(path):
        raise UserError(f"{path} is a pipe, which can be read only once; expected a file: save its sound to one")
    _open(path).close()


def _open(path: pathlib.Path) -> io.BufferedReader:
    with contextlib.ExitStack() as stack:
        try:
            mode = path.stat().st_mode
            if not (stat.S_ISREG(mode) or is_pipe(path)):
                kind = "a folder" if stat.S_ISDIR(mode) else "a device"
                raise UserError(f"{path} is {kind}; expected an audio file")
            file = stack.enter_context(path.open("rb"))
            if stat.S_ISREG(mode) and not file.peek(1):
                raise UserError(f"{path} is empty; expected an audio file")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UserError(f"cannot read {path}: {reason}; expected an audio file") from error
        stack.pop_all()
        return file


def _recording(file: io.BufferedReader, name: str, stack: contextlib.ExitStack) -> Recording:
    """Finds out what a file or pipe holds, and how to read it; what is opened for that is closed with the stack."""
    import av

    head = file.peek(4)
    # FFmpeg takes the samples of a WAV of the other byte order for those of this one.
    if head.startswith(b"RIFX") and (recording := _with_libsndfile(file, name, stack)):
        return recording
    is_ogg = head.startswith(b"OggS")
    num_samples = 0
    if is_ogg and file.seekable():
        with contextlib.suppress(av.FFmpegError), open_container(file) as whole:
            num_samples = guessed_length(first_stream(whole, name))
        file.seek(0)
    links = ogg_links(file) if is_ogg else iter([(file, None)])
    try:
        link, most_samples = next(links)
        container = stack.enter_context(open_container(link))
        stream = first_stream(container, name)
    except (av.FFmpegError, UserError):
        if file.seekable() and (recording := _with_libsndfile(file, name, stack)):
            return recording
        # Where libsndfile cannot read the file either, FFmpeg's error is raised.
        raise
    info = _info(stream, file)
    if is_ogg:
        info = dataclasses.replace(info, num_samples=num_samples, is_guess=True)
    decoder = Decoder(stream)
    decoder.begin(stream, is_short_vorbis=most_samples is not None)
    num_tracks = len(container.streams.audio)
    remark = f"of its {num_tracks} sound tracks the first was read" if num_tracks > 1 else ""

    def chunks() -> Iterator[np.ndarray]:
        yield from _decoded(container, stream, decoder, most_samples)
        for link, most in links:
            try:
                following = stack.enter_context(open_container(link))
                decoder.begin(first_stream(following, name), is_short_vorbis=most is not None)
            except (av.FFmpegError, UserError) as error:
                decoder.stop(reason_of(error))
                return
            yield from _decoded(following, following.streams.audio[0], decoder, most)

    return Recording(name, info, chunks(), decoder, remark)


def _decoded(container, stream, decoder: Decoder, most_samples: int | None) -> Iterator[np.ndarray]:
    """Yields the samples of a stream, at its own rate at most `most_samples`, and closes its container."""
    left = math.inf if most_samples is None else round(most_samples * decoder.sample_rate / stream.rate)
    chunks = (chunk for packet in packets(container, stream, [decoder]) for chunk in decoder.decode(packet))
    for chunk in itertools.chain(chunks, decoder.flush()):
        yield chunk[: min(left, len(chunk))]
        left -= min(left, len(chunk))
    container.close()


def _with_libsndfile(file: io.BufferedReader, name: str, stack: contextlib.ExitStack) -> Recording | None:
    """Opens what FFmpeg does not know; None if libsndfile does not either."""
    file.seek(0)
    try:
        sound = stack.enter_context(soundfile.SoundFile(file))
    except soundfile.LibsndfileError:
        return None
    if not sound.seekable():
        # libsndfile does not say how long it is.
        return None
    container = "RIFX" if (sound.format, sound.endian) == ("WAV", "BIG") else sound.format
    info = AudioInfo(sound.samplerate, sound.channels, sound.frames, sound.subtype, container)
    return Recording(name, info, sound.blocks(BLOCK_SAMPLES, dtype="float32", always_2d=True))


def _info(stream, file: io.BufferedReader) -> AudioInfo:
    num_samples = stated_length(file, stream)
    return AudioInfo(
        stream.rate,
        stream.codec_context.layout.nb_channels,
        num_samples or guessed_length(stream),
        encoding_of(stream.codec_context),
        format_of(stream.container),
        is_guess=not num_samples,
    )


def _random_access(path: pathlib.Path) -> tuple[str, int] | None:
    """libsndfile's name of a file's format, and its length, if libsndfile reads any part of it as FFmpeg would."""
    try:
        with soundfile.SoundFile(os.fsencode(path)) as file:
            is_plain = file.format in RANDOM_ACCESS and file.subtype.startswith(PLAIN_ENCODINGS)
            if is_plain and file.endian != "BIG" and file.frames:
                # A FLAC that breaks off claims the length that it had; one of unknown length says 2**63 - 1.
                file.seek(file.frames - 1)
                return file.format, file.frames
    except (soundfile.LibsndfileError, OverflowError):
        return None
    return None


def _in_step(chunks: Iterable[tuple[int, np.ndarray]], num_streams: int) -> Iterator[list[np.ndarray]]:
    """Yields the samples of some streams in equal steps, of `(stream, chunk)` in any order; the shortest ends it."""
    waiting: list[list[np.ndarray]] = [[] for _ in range(num_streams)]
    lengths = [0] * num_streams

    def take(num_samples: int) -> Iterator[np.ndarray]:
        for stream, parts in enumerate(waiting):
            joined = np.concatenate(parts)
            waiting[stream] = [joined[num_samples:]]
            lengths[stream] -= num_samples
            yield joined[:num_samples]

    for stream, chunk in chunks:
        waiting[stream].append(chunk)
        lengths[stream] += len(chunk)
        while min(lengths) >= BLOCK_SAMPLES:
            yield [*take(BLOCK_SAMPLES)]
    if min(lengths):
        yield [*take(min(lengths))]
