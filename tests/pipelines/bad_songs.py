"""Songs that cannot be used, one maker for each kind of damage."""

import pathlib
import shutil

import av
import numpy as np
import soundfile


def remux(source: pathlib.Path, target: pathlib.Path, *, num_streams: int = 5, short_stream: bool = False) -> None:
    """Copies the audio streams of a `.stem.mp4`, with the index in front, as a file made for streaming has it."""
    with av.open(str(source)) as original, av.open(str(target), "w", "mp4", {"movflags": "faststart"}) as copy:
        streams = original.streams.audio[:num_streams]
        copies = {stream.index: copy.add_stream_from_template(stream) for stream in streams}
        for packet in original.demux(streams):
            is_late = packet.pts is not None and packet.pts * packet.time_base > 3
            if packet.dts is None or (short_stream and packet.stream is streams[1] and is_late):
                continue
            packet.stream = copies[packet.stream.index]
            copy.mux(packet)


def _cut(path: pathlib.Path, share: float) -> None:
    with path.open("r+b") as file:
        file.truncate(int(path.stat().st_size * share))


def _replace_last(path: pathlib.Path, old: bytes, new: bytes) -> None:
    """Replaces bytes of the header of a file's last stream."""
    first, found, last = path.read_bytes().rpartition(old)
    assert found
    path.write_bytes(first + new + last)


def truncated_stem_file(folder, write_song, real_track):
    shutil.copyfile(real_track, folder / "bad song.stem.mp4")
    _cut(folder / "bad song.stem.mp4", 0.5)


def truncated_streaming_stem_file(folder, write_song, real_track):
    remux(real_track, folder / "bad song.stem.mp4")
    _cut(folder / "bad song.stem.mp4", 0.7)


def stem_file_without_vocals(folder, write_song, real_track):
    remux(real_track, folder / "bad song.stem.mp4", num_streams=4)


def stem_file_of_unequal_streams(folder, write_song, real_track):
    remux(real_track, folder / "bad song.stem.mp4", short_stream=True)


def stem_file_of_unknown_codec(folder, write_song, real_track):
    remux(real_track, folder / "bad song.stem.mp4")
    for name in (b"mp4a", b"esds"):
        _replace_last(folder / "bad song.stem.mp4", name, b"zzzz")


def stem_file_without_channels(folder, write_song, real_track):
    remux(real_track, folder / "bad song.stem.mp4")
    # Of the two bytes of AAC's own header five bits are its kind, four the rate, and the next four the channels.
    _replace_last(folder / "bad song.stem.mp4", b"\x80\x02\x12\x10\x06", b"\x80\x02\x12\x00\x06")


def empty_stem_file(folder, write_song, real_track):
    (folder / "bad song.stem.mp4").touch()


def missing_stem(folder, write_song, real_track):
    (write_song(folder / "bad song") / "bass.wav").unlink()


def empty_file(folder, write_song, real_track):
    (write_song(folder / "bad song") / "bass.wav").write_bytes(b"")


def no_audio(folder, write_song, real_track):
    (write_song(folder / "bad song") / "bass.wav").write_text("bass " * 1000)


def truncated_wav(folder, write_song, real_track):
    _cut(write_song(folder / "bad song") / "bass.wav", 0.5)


def truncated_flac(folder, write_song, real_track):
    song = write_song(folder / "bad song", num_samples=40000, suffix=".flac")
    _cut(song / "bass.flac", 0.5)


def no_samples(folder, write_song, real_track):
    write_song(folder / "bad song", num_samples=0)


def unequal_lengths(folder, write_song, real_track):
    song = write_song(folder / "bad song")
    soundfile.write(song / "bass.wav", np.full((3999, 2), 0.1), 8000, "PCM_16")


def unequal_rates(folder, write_song, real_track):
    song = write_song(folder / "bad song")
    soundfile.write(song / "bass.wav", np.full((4000, 2), 0.1), 16000, "PCM_16")


def not_a_number(folder, write_song, real_track):
    song = write_song(folder / "bad song", subtype="FLOAT")
    samples = np.full((4000, 2), 0.1)
    samples[1234, 1] = np.nan
    soundfile.write(song / "bass.wav", samples, 8000, "FLOAT")


# Each with words that its message must have.
BAD_SONGS = {
    truncated_stem_file: "breaks off after",
    truncated_streaming_stem_file: "breaks off after",
    stem_file_without_vocals: "4 audio streams",
    stem_file_of_unequal_streams: "different lengths",
    stem_file_of_unknown_codec: "audio that FFmpeg cannot decode",
    stem_file_without_channels: "audio that FFmpeg cannot decode",
    empty_stem_file: "is empty",
    missing_stem: "lacks bass",
    empty_file: "is empty",
    no_audio: "no audio file",
    truncated_wav: "different lengths",
    truncated_flac: "breaks off after 2.0 of 5.0 s",
    no_samples: "no samples",
    unequal_lengths: "bass 3999",
    unequal_rates: "bass 16000",
    not_a_number: "NaN",
}
