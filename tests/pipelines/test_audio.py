import io
import pathlib
import re
import shutil
import subprocess

import av
import numpy as np
import pytest
import soundfile

from pipelines.audio import reading
from pipelines.errors import UserError
from tests.pipelines.bad_songs import remux


@pytest.mark.parametrize(
    "name, subtype",
    [("a.wav", "PCM_16"), ("a.wav", "PCM_24"), ("a.wav", "FLOAT"), ("a.flac", "PCM_16"), ("a.ogg", "VORBIS")],
)
@pytest.mark.parametrize("num_channels", [1, 2])
def test_reads_what_soundfile_reads(tmp_path, monkeypatch, name, subtype, num_channels):
    monkeypatch.setattr(reading, "BLOCK_SAMPLES", 1000)
    path = tmp_path / name
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, (10_001, num_channels)), 22050, subtype)
    info = reading.probe(path)
    assert (info.sample_rate, info.num_channels, info.num_samples) == (22050, num_channels, 10_001)
    assert (info.container, info.encoding) == (name[2:], subtype.replace("VORBIS", "vorbis"))
    blocks = list(reading.read_blocks(path))
    assert [len(block) for block in blocks] == [1000] * 10 + [1]
    expected, _ = soundfile.read(path, dtype="float32", always_2d=True)
    np.testing.assert_allclose(np.concatenate(blocks), expected, rtol=0, atol=1e-5 if subtype == "VORBIS" else 0)
    assert blocks[0].dtype == np.float32


def test_reads_the_first_stream_of_several(real_track, monkeypatch):
    info = reading.probe(real_track)
    assert info == reading.AudioInfo(44100, 2, 268_288, "aac", "mov")
    monkeypatch.setattr(reading, "BLOCK_SAMPLES", 100_000)
    blocks = list(reading.read_blocks(real_track))
    assert [len(block) for block in blocks] == [100_000, 100_000, 68_288]
    monkeypatch.setattr(reading, "BLOCK_SAMPLES", 268_288)
    [streams] = reading.read_streams(real_track)
    np.testing.assert_array_equal(np.concatenate(blocks), streams[0])


def test_reads_all_streams_in_equal_blocks(real_track, monkeypatch):
    assert [info.num_samples for info in reading.probe_streams(real_track)] == [268_288] * 5
    monkeypatch.setattr(reading, "BLOCK_SAMPLES", 50_001)
    blocks = list(reading.read_streams(real_track))
    assert [[len(samples) for samples in block] for block in blocks] == [[50_001] * 5] * 5 + [[18_283] * 5]
    mixture, *sources = (np.concatenate(stream) for stream in zip(*blocks, strict=True))
    # The streams stand in their order: the last four make up the first, but for the losses of AAC.
    residual = np.square(mixture - sum(sources)).mean() / np.square(mixture).mean()
    assert residual < 0.05


@pytest.mark.parametrize("share", [0.9, 0.5, 0.3])
@pytest.mark.parametrize("index_in_front", [True, False])
def test_no_part_of_a_truncated_file_passes_for_the_whole(tmp_path, real_track, share, index_in_front):
    path = tmp_path / "cut.stem.mp4"
    remux(real_track, path) if index_in_front else shutil.copyfile(real_track, path)
    with path.open("r+b") as file:
        file.truncate(int(path.stat().st_size * share))
    with pytest.raises(UserError, match="cut.stem.mp4"):
        for _ in reading.read_streams(path):
            pass


@pytest.mark.parametrize("index_in_front", [True, False])
def test_a_packet_that_breaks_off_is_said(tmp_path, real_track, index_in_front):
    path = tmp_path / "cut.stem.mp4"
    remux(real_track, path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 100)
    notes = []
    assert sum(len(block[0]) for block in reading.read_streams(path, note=notes.append)) > 260_000
    assert notes and all("could not be decoded" in note for note in notes)


def test_header_that_claims_more_than_there_is(real_track, monkeypatch):
    monkeypatch.setattr(reading, "stated_length", lambda file, stream: 300_000)
    with pytest.raises(UserError, match="breaks off after 268288 of 300000 samples"):
        list(reading.read_streams(real_track))


def write_nothing(path: pathlib.Path) -> None:
    path.touch()


def write_text(path: pathlib.Path) -> None:
    path.write_text("not audio " * 100)


def make_folder(path: pathlib.Path) -> None:
    path.mkdir()


def leave_out(path: pathlib.Path) -> None:
    pass


@pytest.mark.parametrize(
    "make, reason",
    [
        (write_nothing, "is empty"),
        (write_text, "cannot decode"),
        (make_folder, "is a folder"),
        (leave_out, "No such file"),
    ],
)
@pytest.mark.parametrize(
    "read",
    [
        reading.probe,
        reading.probe_streams,
        lambda path: list(reading.read_blocks(path)),
        lambda path: list(reading.read_streams(path)),
    ],
)
def test_no_audio(tmp_path, make, reason, read):
    path = tmp_path / "a b.wav"
    make(path)
    with pytest.raises(UserError, match=reason) as raised:
        read(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_picture_alone_is_no_audio(tmp_path, real_track):
    import av

    with av.open(str(real_track)) as original, av.open(str(tmp_path / "picture.mp4"), "w") as copy:
        [stream] = original.streams.video
        target = copy.add_stream_from_template(stream)
        for packet in original.demux(stream):
            if packet.size:
                packet.stream = target
                copy.mux(packet)
    with pytest.raises(UserError, match="holds no audio stream"):
        reading.probe(tmp_path / "picture.mp4")
    with pytest.raises(UserError, match="holds no audio stream"):
        list(reading.read_streams(tmp_path / "picture.mp4"))


def write_mp3(path, num_samples, write_xing):
    """Writes MP3 with or without the header that says how long it is."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (2, num_samples)).astype(np.float32)
    with av.open(str(path), "w", options={"write_xing": write_xing}) as container:
        stream = container.add_stream("libmp3lame", rate=44_100, layout="stereo")
        frame = av.AudioFrame.from_ndarray(noise, "fltp", "stereo")
        frame.sample_rate = 44_100
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)


@pytest.mark.parametrize("write_xing", ["1", "0"])
def test_whole_mp3_files_are_read_whole(tmp_path, write_xing):
    path = tmp_path / "song.mp3"
    write_mp3(path, 200_011, write_xing)
    num_samples = sum(map(len, reading.read_blocks(path)))
    # Without the header the padding of the encoder is not known.
    assert num_samples == 200_011 if write_xing == "1" else 0 <= num_samples - 200_011 < 4096


@pytest.mark.parametrize(("share", "seconds"), [(0.75, 3.4), (0.25, 1.1)])
def test_of_a_truncated_mp3_most_must_be_there(tmp_path, capfd, share, seconds):
    path = tmp_path / "song.mp3"
    write_mp3(path, 200_011, "1")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    text = rf"breaks off after {seconds} of 4.5 s"
    if share > 0.5:
        num_samples = sum(map(len, reading.read_blocks(path)))
        assert abs(num_samples / 44_100 - seconds) < 0.1
        assert re.fullmatch(rf".*song.mp3: .*{text}\n", capfd.readouterr().err)
    else:
        with pytest.raises(UserError, match=f"cannot decode most of .*song.mp3: .*{text}; put a good copy"):
            list(reading.read_blocks(path))
        assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["song.wav", "song.flac", "song.ogg", "song.mp3"])
def test_a_pipe_gives_what_the_file_gives(tmp_path, name):
    path = tmp_path / name
    if name.endswith("mp3"):
        write_mp3(path, 100_011, "1")
    else:
        soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, (100_011, 2)), 44_100)
    with (
        subprocess.Popen(["cat", str(path)], stdout=subprocess.PIPE) as process,
        reading.open_audio(process.stdout, "the pipe") as recording,
    ):
        streamed = np.concatenate(list(recording.blocks()))
    assert (recording.info.sample_rate, recording.info.num_channels) == (44_100, 2)
    np.testing.assert_array_equal(streamed, np.concatenate(list(reading.read_blocks(path))))


def test_a_pipe_without_audio_is_named():
    for content, message in ((b"no audio at all\n" * 100, "cannot decode the pipe"), (b"", "the pipe is empty")):
        pipe = io.BufferedReader(io.BytesIO(content))
        with pytest.raises(UserError, match=message), reading.open_audio(pipe, "the pipe") as recording:
            list(recording.blocks())


@pytest.mark.parametrize("num_channels", [1, 2])
@pytest.mark.parametrize("kind", ["tone", "noise", "silence"])
@pytest.mark.parametrize("num_samples", [1, 100, 1000, 5000, 10_001, 20_000, 30_011])
def test_vorbis_on_one_page_ends_where_libvorbis_ends_it(tmp_path, kind, num_samples, num_channels):
    time = np.arange(num_samples) / 44_100
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, num_samples)
    sound = {"tone": 0.3 * np.sin(2 * np.pi * 440 * time), "noise": noise, "silence": 0 * time}[kind]
    path = tmp_path / "short.ogg"
    soundfile.write(path, np.stack([sound] * num_channels, axis=1), 44_100, "VORBIS")
    expected, _ = soundfile.read(path, dtype="float32", always_2d=True)
    np.testing.assert_allclose(np.concatenate(list(reading.read_blocks(path))), expected, rtol=0, atol=1e-5)
