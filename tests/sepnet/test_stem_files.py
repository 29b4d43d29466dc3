"""The files of stems, against ffmpeg's reading of them."""

import json
import subprocess

import numpy as np
import pytest
import soundfile

from pipelines.audio.reading import AudioInfo
from pipelines.errors import UserError
from sepnet.separate import main as separate
from sepnet.separation import stem_files
from tests.sepnet.helpers import noise, tone

RATE = 48_000
# So low that the channel for low frequencies keeps it, too.
HZ = [50 + 13 * channel for channel in range(8)]
LAYOUTS = ("mono", "stereo", "3.0", "quad", "5.0", "5.1", "6.1", "7.1")


def decode(path, num_channels, stream=0):
    """A stream's samples by ffmpeg, in the order of WAV."""
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-map", f"0:a:{stream}", "-f", "f32le", "-"]
    decoded = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(decoded, np.float32).reshape(-1, num_channels)


def describe(path):
    command = ["ffprobe", "-v", "error", "-show_streams", "-of", "json", str(path)]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["streams"]


@pytest.mark.parametrize("format_name", ["wav", "flac", "opus"])
@pytest.mark.parametrize("num_channels", range(1, 9))
def test_channels_keep_their_places(identity, tmp_path, num_channels, format_name):
    """Every channel has a tone of its own."""
    seconds = np.arange(RATE) / RATE
    song = np.stack([0.3 * np.sin(2 * np.pi * hz * seconds) for hz in HZ[:num_channels]], axis=1)
    soundfile.write(tmp_path / "song.wav", song, RATE)
    flags = ["--model", str(identity), "-o", str(tmp_path), "--stems", "vocals", "--format", format_name]
    separate([str(tmp_path / "song.wav"), *flags])
    stem = decode(tmp_path / f"vocals.{format_name}", num_channels)[:RATE]
    spectra = np.abs(np.fft.rfft(stem * np.hanning(len(stem))[:, None], axis=0))
    np.testing.assert_allclose(spectra.argmax(axis=0) * RATE / len(stem), HZ[:num_channels], atol=2)
    if format_name == "opus":
        assert describe(tmp_path / "vocals.opus")[0]["channel_layout"] == LAYOUTS[num_channels - 1]


def test_the_streams_of_a_stem_mp4_say_what_they_are(gain_model, tmp_path):
    model = gain_model({"vocals": 1.0, "../drums:": 1.0}, sample_rate=44_100)
    soundfile.write(tmp_path / "song.wav", tone(2, 44_100, 5000), 44_100)
    # FFmpeg would take what is before a colon for a protocol.
    flags = ["--karaoke", "--stems", "../drums:,vocals", "--format", "stem.mp4", "-o", str(tmp_path / "Out: 1")]
    separate([str(tmp_path / "song.wav"), "--model", str(model), *flags])
    streams = describe(f"file:{tmp_path / 'Out: 1' / 'song.stem.mp4'}")
    assert [stream["tags"]["handler_name"] for stream in streams] == ["mixture", "vocals", "../drums:", "karaoke"]


@pytest.mark.parametrize(("encoding", "num_bytes"), [("PCM_16", 2), ("PCM_24", 3), ("FLOAT", 4), ("DOUBLE", 8)])
def test_wav_files_are_rf64_where_a_header_cannot_tell_their_size(tmp_path, monkeypatch, encoding, num_bytes):
    monkeypatch.setattr(stem_files, "WAV_LIMIT_BYTES", 2 * 100 * num_bytes)
    for num_samples, kind in ((100, b"RIFF"), (101, b"RF64")):
        info = AudioInfo(RATE, 2, num_samples, encoding, "WAV")
        with stem_files.StemFiles(tmp_path, info, ["vocals"]) as files:
            files.write({"vocals": noise(num_samples, 2)})
            [path], _ = files.finish("wav")
        assert path.read_bytes()[:4] == kind
        assert (soundfile.info(path).frames, soundfile.info(path).subtype) == (num_samples, encoding)


def test_a_relative_folder_with_a_colon(identity, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    soundfile.write("song.wav", tone(2, 44_100, 5000), 44_100)
    separate(["song.wav", "--model", str(identity), "-o", "Out: 1", "--format", "stem.mp4"])
    assert [path.name for path in (tmp_path / "Out: 1").iterdir()] == ["song.stem.mp4"]


@pytest.mark.parametrize(
    ("format_name", "sample_rate", "num_channels", "message"),
    [
        ("flac", 768_000, 2, "flac cannot hold 2 channels at 768000 Hz; take --format wav$"),
        ("mp3", 768_000, 1, "mp3 cannot hold 1 channel at 768000 Hz; take --format wav$"),
        ("flac", 44_100, 9, "flac cannot hold 9 channels at 44100 Hz; take --format wav$"),
        ("mp3", 44_100, 8, "mp3 cannot hold 8 channels at 44100 Hz; take --format wav or flac$"),
        *(("stem.mp4", 44_100, n, f"stem.mp4 cannot hold {n} channels .* --format wav or flac") for n in (3, 6, 8)),
        ("stem.mp4", 192_000, 1, "stem.mp4 cannot hold 1 channel at 192000 Hz; take --format wav or flac"),
    ],
)
def test_advice_names_a_format_that_can(identity, tmp_path, format_name, sample_rate, num_channels, message):
    soundfile.write(tmp_path / "song.wav", noise(1000, num_channels), sample_rate)
    with pytest.raises(UserError, match=message):
        separate([str(tmp_path / "song.wav"), "--model", str(identity), "-o", str(tmp_path), "--format", format_name])
    assert [path.name for path in tmp_path.iterdir()] == ["song.wav"]
    advised = message.rstrip("$").rpartition(" ")[2]
    separate([str(tmp_path / "song.wav"), "--model", str(identity), "-o", str(tmp_path), "--format", advised])
    assert soundfile.info(tmp_path / f"vocals.{advised}").samplerate == sample_rate


FORMATS = ("wav", "flac", "mp3", "opus", "stem.mp4")


@pytest.mark.parametrize("flags", [*(["--format", name] for name in FORMATS), ["-o", "-", "--stems", "vocals"]])
@pytest.mark.parametrize("sample", [1e25, -1e12, 3e38])
def test_a_number_that_is_no_sound_is_refused_as_nan_is(identity, tmp_path, monkeypatch, flags, sample):
    monkeypatch.chdir(tmp_path)
    song = np.full((88_200, 2), 0.1, np.float32)
    song[44_100, 1] = sample
    soundfile.write("song.wav", song, 44_100, "FLOAT")
    with pytest.raises(UserError, match=r"holds \S+ times full scale, first at 1.000 s; mend it") as caught:
        separate(["song.wav", "--model", str(identity), *flags])
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["song.wav"]


@pytest.mark.parametrize("flags", [*(["--format", name] for name in FORMATS), ["-o", "-", "--stems", "broken"]])
@pytest.mark.parametrize("gain", [np.nan, np.inf, 1e30])
def test_stems_that_are_no_sound_are_refused(gain_model, tmp_path, monkeypatch, flags, gain):
    """A model whose weights are broken."""
    model = gain_model({"vocals": 1.0, "broken": gain}, sample_rate=44_100)
    monkeypatch.chdir(tmp_path)
    song = np.zeros((44_100, 2), np.float32)
    song[22_050:] = 0.5
    soundfile.write("song.wav", song, 44_100)
    # Nothing times infinity is no number from the beginning.
    first = "0.500" if gain == 1e30 else "0.000"
    with pytest.raises(UserError, match=rf"of the audio as broken, first at {first} s; .*another model"):
        separate(["song.wav", "--model", str(model), *flags])
    assert [path.name for path in tmp_path.iterdir()] == ["song.wav"]


def test_floats_that_were_integers_are_loud_and_no_more(identity, tmp_path, capsys):
    samples = np.round(tone(2, 44_100, 5000) * 2**31).astype(np.float32)
    soundfile.write(tmp_path / "song.wav", samples, 44_100, "FLOAT")
    separate([str(tmp_path / "song.wav"), "--model", str(identity), "-o", str(tmp_path), "--format", "flac"])
    assert "dB softer" in capsys.readouterr().err
    stem, _ = soundfile.read(tmp_path / "vocals.flac")
    np.testing.assert_allclose(stem, samples / np.abs(samples).max(), atol=1e-6)
