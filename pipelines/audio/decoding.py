"""FFmpeg's decoders, by PyAV: damaged packets are left out, time is kept, and a stream's first shape is kept."""

import contextlib
import re
from collections.abc import Iterator

import numpy as np
import soundfile

from pipelines.audio.wav import promised_share
from pipelines.errors import UserError

# Formats, by FFmpeg's names, whose headers state a length. The others leave it to a guess from the bit rate, from the
# longest of all streams, or from time stamps.
STATE_LENGTH = {"wav", "w64", "aiff", "caf", "flac", "mov", "tta", "wv", "ape", "dsf", "mp3"}
# Marks in the first frame of an MP3 that states its length, and the bytes from there to the number of frames.
MP3_LENGTHS = {b"Xing": 8, b"Info": 8, b"VBRI": 14}
MP3_FRAME_BYTES = 4096
LOWEST_MPEG_1_RATE = 32_000
# First bytes of the tags before, between or behind the frames of an MP3: they are not counted as lost audio.
TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN")
# Formats of which FFmpeg drops damaged pages or frames without a word, and whose time stamps are true.
KEEP_GAPS = {"ogg", "flac"}
# Time stamps are off by so much even in whole files: some containers have milliseconds, Ogg one stamp for each page.
LEAST_GAP_SECONDS = 0.02
# Behind a longer gap in the time stamps something else begins; a packet is no longer than this either.
MOST_GAP_SECONDS = 10
# A rate in the middle of a stream that differs by more than this factor is damage: it would take any memory.
MOST_RATE_CHANGE = 16
SILENT_BLOCK = 1 << 16
FULL_SCALES = {"u8": 1 << 7, "s16": 1 << 15, "s32": 1 << 31, "s64": 1 << 63}
DEPTHS = (8, 16, 24, 32)


class Decoder:
    """Turns the packets of one audio stream, or of several that follow each other, into samples of one shape.

    The rate and the channels of the first stream are kept: what differs later is resampled and mixed to them. A packet
    that cannot be decoded becomes silence as long as it, where anything follows.

    Args:
        stream: PyAV's, of which the shape is taken.

    Attributes:
        num_samples: samples of each channel given so far.
        num_silent: samples of these that could not be decoded.
        num_behind: samples behind them that could not be decoded.
    """

    def __init__(self, stream):
        self.sample_rate: int = stream.rate
        self.num_channels: int = stream.codec_context.layout.nb_channels
        self._layout: str = stream.codec_context.layout.name
        self.num_samples = self.num_silent = self.num_behind = 0
        self._first_lost: float | None = None
        self._end = ""
        self._next_time: int | None = None
        self._frame_samples = 0
        self._keeps_gaps = format_of(stream.container) in KEEP_GAPS
        self._resampler = self._resampled = None
        self._is_first_packet_silent = False
        self.begin(stream)

    def begin(self, stream, *, is_short_vorbis: bool = False) -> None:
        """Begins with a stream: the first one, or one that follows.

        Args:
            stream: PyAV's, of which nothing was decoded yet.
            is_short_vorbis: the stream lies on one page, of which FFmpeg cuts the wrong end. Nothing is cut then,
                and of what comes the first samples are right, as many as the page says.
        """
        options = {}
        if stream.codec_context.name == "flac":
            # Without the check, damaged frames would be decoded to noise.
            options["err_detect"] = "crccheck"
        if is_short_vorbis:
            options["flags2"] = "skip_manual"
        stream.codec_context.options = options
        # By Vorbis' specification the first packet gives no samples.
        self._is_first_packet_silent = is_short_vorbis

    def decode(self, packet) -> Iterator[np.ndarray]:
        """Yields the samples of a packet, float32 `[num_samples, num_channels]`; an empty packet ends its stream."""
        import av

        try:
            if self._is_first_packet_silent:
                self._is_first_packet_silent = False
                packet.decode()
                return
            chunks = [(self._gap_before(frame, packet.is_corrupt), self._samples(frame)) for frame in packet.decode()]
        except (av.FFmpegError, ValueError):
            self._lose(packet)
            return
        for gap, samples in chunks:
            self.num_silent += gap
            self.num_samples += gap + len(samples)
            for first in range(0, gap, SILENT_BLOCK):
                yield np.zeros((min(SILENT_BLOCK, gap - first), self.num_channels), np.float32)
            yield samples

    def flush(self) -> Iterator[np.ndarray]:
        """Yields what the resampler still holds; a stream that follows begins anew."""
        if self._resampler:
            rest = [_to_float(part) for part in self._resampler.resample(None)]
            self._resampler = self._resampled = None
            self.num_samples += sum(map(len, rest))
            yield from rest
        self._next_time = None

    def stop(self, reason: str) -> None:
        """Notes that nothing more can be read, and why."""
        self._note_place()
        self._end = f"the rest cannot be read ({reason})"

    def loss(self, num_missing: int = 0) -> str:
        """Says how much could not be decoded, and `num_missing` samples at the end; "" if nothing was lost."""
        lost = self.num_silent + self.num_behind
        parts = []
        if lost:
            parts.append(
                f"{max(lost / self.sample_rate, 0.001):.3f} s could not be decoded and is silent, "
                f"first at {self._first_lost:.3f} s"
            )
        if num_missing:
            parts.append(
                f"it breaks off after {self.num_samples / self.sample_rate:.1f} of "
                f"{(self.num_samples + num_missing) / self.sample_rate:.1f} s"
            )
        return "; ".join([*parts, *filter(None, [self._end])])

    def _lose(self, packet) -> None:
        if bytes(packet).startswith(TAGS):
            return
        self._note_place()
        samples = round(float((packet.duration or 0) * (packet.time_base or 0)) * self.sample_rate)
        if abs(samples - self._frame_samples) <= self.sample_rate // 1000:
            # Some containers have milliseconds.
            samples = self._frame_samples
        self.num_behind += max(1, min(samples, MOST_GAP_SECONDS * self.sample_rate))

    def _note_place(self) -> None:
        if self._first_lost is None:
            self._first_lost = self.num_samples / self.sample_rate

    def _gap_before(self, frame, is_damaged: bool) -> int:
        """Counts the samples missing before a frame: by the time stamps, else by the packets that were lost."""
        gap, self.num_behind = self.num_behind, 0
        length = self._frame_samples = round(frame.samples * self.sample_rate / frame.sample_rate)
        if frame.pts is None or not frame.time_base:
            self._next_time = None if self._next_time is None else self._next_time + gap + length
            return gap
        time = round(frame.pts * frame.time_base * self.sample_rate)
        if self._next_time is not None and (gap or is_damaged or self._keeps_gaps):
            jump, least = time - self._next_time, LEAST_GAP_SECONDS * self.sample_rate
            if least < jump <= MOST_GAP_SECONDS * self.sample_rate and abs(jump - gap) > least:
                gap = jump
                self._note_place()
        self._next_time = time + length
        return gap

    def _samples(self, frame) -> np.ndarray:
        if (frame.sample_rate, frame.layout.nb_channels) == (self.sample_rate, self.num_channels):
            return _to_float(frame)
        import av

        if not 1 / MOST_RATE_CHANGE <= frame.sample_rate / self.sample_rate <= MOST_RATE_CHANGE:
            raise ValueError(f"the rate changes from {self.sample_rate} to {frame.sample_rate} Hz")
        shape = (frame.format.name, frame.layout.name, frame.sample_rate)
        # The resampler has its own opinion of time.
        frame.pts = None
        parts = []
        if shape != self._resampled:
            if self._resampler:
                parts += self._resampler.resample(None)
            self._resampler = av.AudioResampler(format="flt", layout=self._layout, rate=self.sample_rate)
            self._resampled = shape
        parts += self._resampler.resample(frame)
        return np.concatenate([np.zeros((0, self.num_channels), np.float32), *map(_to_float, parts)])


def open_container(file):
    """Opens a file or pipe with FFmpeg, which sees no more than its bytes.

    Raises:
        av.FFmpegError: FFmpeg does not know it.
    """
    import av

    if hasattr(file, "seekable") and file.seekable():
        file = _Seeking(file)
    # Playlists and the like name other files and addresses: none can be opened without a protocol.
    return av.open(file, "r", options={"protocol_whitelist": "none"}, metadata_errors="replace")


class _Seeking:
    """A file in which FFmpeg may seek to invalid places, as a damaged header names them."""

    def __init__(self, file):
        self._file = file
        self.read, self.tell = file.read, file.tell

    def seek(self, offset: int, whence: int = 0) -> int:
        """Returns the new place, or -1, by which FFmpeg knows that there is none."""
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError):
            return -1


def packets(container, streams, decoders) -> Iterator:
    """Yields the packets of some streams; where the container is damaged, what comes before."""
    import av

    try:
        yield from container.demux(streams)
    except av.FFmpegError as error:
        for decoder in decoders:
            decoder.stop(reason_of(error))


def format_of(container) -> str:
    """FFmpeg's name of a container's format, the first where it has several."""
    return container.format.name.split(",")[0]


def first_stream(container, name: str):
    """The first audio stream of the file `name`.

    Raises:
        UserError: the file has no audio stream, or the first cannot be decoded.
    """
    if not container.streams.audio:
        raise UserError(f"{name} holds no audio stream")
    return decodable(container.streams.audio[0], name)


def decodable(stream, name: str):
    """The audio stream itself; raises a `UserError` about the file `name` if it cannot be decoded."""
    context = stream.codec_context
    if context is None or not (stream.rate and context.layout.nb_channels and context.format):
        raise UserError(f"{name} holds audio that FFmpeg cannot decode; save it in another format")
    return stream


def stated_length(file, stream) -> int:
    """Samples that a header states; 0 where there is none that does."""
    name = format_of(stream.container)
    if name not in STATE_LENGTH or not stream.duration or stream.duration < 0:
        return 0
    num_samples = round(stream.duration * stream.time_base * stream.rate)
    if name == "wav" and file.seekable():
        # FFmpeg counts what is there.
        return round(num_samples * promised_share(file))
    if name == "mp3" and abs(_stated_mp3_samples(file, stream.rate) - num_samples) > MP3_FRAME_BYTES:
        # FFmpeg guesses, also where it sees that several files were joined.
        return 0
    return num_samples


def guessed_length(stream) -> int:
    """Samples that FFmpeg guesses from what it saw; 0 if it has no idea."""
    import av

    if stream.duration and stream.duration > 0:
        return round(stream.duration * stream.time_base * stream.rate)
    return round(max(stream.container.duration or 0, 0) / av.time_base * stream.rate)


def encoding_of(context) -> str:
    """libsndfile's name of a codec's samples where nothing is lost, as "PCM_24"; else the codec's name."""
    codec, sample_format = context.codec, context.format.name.removesuffix("p")
    is_float = sample_format in ("flt", "dbl")
    # WavPack and DTS have both kinds; DTS gives floats where it loses.
    if not codec.lossless or (is_float and codec.lossy and codec.name != "wavpack"):
        return codec.name.removesuffix("float")
    if is_float:
        return {"flt": "FLOAT", "dbl": "DOUBLE"}[sample_format]
    return f"PCM_{_depth(context, sample_format)}"


def reason_of(error: Exception) -> str:
    """FFmpeg's reason for an error, to go on a sentence with."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    reason = reason.partition(": '")[0]
    return f"{reason[0].lower()}{reason[1:]}"


@contextlib.contextmanager
def decoding(name: str) -> Iterator[None]:
    """Turns the errors of FFmpeg and of libsndfile into a `UserError` about the file `name`."""
    import av

    try:
        yield
    except (av.FFmpegError, UnicodeDecodeError) as error:
        raise UserError(
            f"cannot decode {name}: {reason_of(error)}; "
            "it is no audio file, or not a complete one: put a good copy in its place"
        ) from error
    except soundfile.LibsndfileError as error:
        raise UserError(f"cannot decode {name}: {error}; expected a complete audio file") from error


def _to_float(frame) -> np.ndarray:
    """Float32 `[num_samples, num_channels]`, full scale ±1."""
    name = frame.format.name
    samples = frame.to_ndarray()
    samples = samples.T if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels)
    scale = FULL_SCALES.get(name.removesuffix("p"))
    if scale is None:
        return samples.astype(np.float32)
    offset = 128 if name.startswith("u8") else 0
    return (samples.astype(np.float32) - offset) / np.float32(scale)


def _depth(context, sample_format: str) -> int:
    """Bits of a sample: a decoder may give more than the file has."""
    bits = 8 * context.format.bytes
    data = context.extradata or b""
    if named := re.match(r"pcm_[a-z](\d+)", context.name):
        bits = int(named[1])
    elif context.name == "flac" and len(data) >= 14:
        bits = ((data[12] & 1) << 4 | data[13] >> 4) + 1
    elif context.name == "alac" and len(data) >= 18:
        bits = data[17]
    elif bits == 32:
        # As good as every file of more than 16 bits; the header of none of these says so through PyAV.
        bits = 24
    return next((depth for depth in DEPTHS if depth >= bits), DEPTHS[-1])


def _stated_mp3_samples(file, sample_rate: int) -> int:
    """Reads an MP3's samples from its first frame, padding included, or 0; the place in the file is kept."""
    place = file.tell()
    file.seek(0)
    head = file.read(10)
    tag_bytes = 0
    if head.startswith(b"ID3") and len(head) == 10:
        # Seven bits of each byte count.
        tag_bytes = 10 + sum((byte & 0x7F) << (7 * (3 - index)) for index, byte in enumerate(head[6:]))
    file.seek(tag_bytes)
    frame = file.read(MP3_FRAME_BYTES)
    file.seek(place)
    for name, offset in MP3_LENGTHS.items():
        start = frame.find(name)
        if start >= 0:
            num_frames = int.from_bytes(frame[start + offset : start + offset + 4], "big")
            return num_frames * (1152 if sample_rate >= LOWEST_MPEG_1_RATE else 576)
    return 0
