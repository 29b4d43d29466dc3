"""Songs of any length, rate, channels and format in; stems of exactly that shape out."""

import itertools

import av
import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import soundfile

from sepnet.separate import main as separate
from sepnet.separator import Separator
from tests.sepnet.helpers import SAMPLE_RATE, SOURCES, noise, stacked

GAINS = {"vocals": 1.0, "rest": 1.0}
LENGTH = 30_011


@pytest.fixture(scope="module")
def separators(exported):
    return {family: Separator(folder) for family, folder in exported.items()}


@pytest.fixture(scope="module")
def identity(gain_model):
    """A model at 44.1 kHz whose stems are the mixture itself."""
    return gain_model(GAINS, sample_rate=44_100)


def tone(num_channels, sample_rate, num_samples=LENGTH):
    """A chord at half of full scale that differs from channel to channel."""
    seconds = np.arange(num_samples)[:, None] / sample_rate
    hz = 220 * (1 + np.arange(num_channels)) + 7 * np.sin(seconds)
    return (0.5 * np.sin(2 * np.pi * hz * seconds)).astype(np.float32)


def write_m4a(path, samples, sample_rate):
    """Writes AAC in MP4, which libsndfile does not read."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=sample_rate, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout="stereo")
        frame.sample_rate = sample_rate
        for packet in itertools.chain(stream.encode(frame), stream.encode(None)):
            container.mux(packet)


def read_m4a(path):
    """All samples that PyAV decodes."""
    with av.open(str(path)) as container:
        return np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1).T


@pytest.mark.parametrize("family", ["unet_1d", "unet_1d_context", "unet_2d"])
@pytest.mark.parametrize("chunk_samples", [97, 5000, 10**6])
def test_blocks_give_what_the_whole_gives(separators, networks, family, chunk_samples):
    separator, song = separators[family], noise(12 * SAMPLE_RATE + 13, 2)
    # Longer than a block of ten seconds, so that there is a seam.
    chunks = [song[start : start + chunk_samples] for start in range(0, len(song), chunk_samples)]
    blocks = list(separator.separate_blocks(chunks, SAMPLE_RATE, 2))
    assert len(blocks) > 1
    joined = {source: np.concatenate([block[source] for block in blocks])[None] for source in SOURCES}
    whole = stacked(networks[family].model(song[None]))
    np.testing.assert_allclose(stacked(joined), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("seconds", [3, 10, 10.0001, 19.5, 28.3])
def test_blocks_without_an_end_to_their_context_fade_into_each_other(gain_model, seconds):
    """Group normalisation looks at all of its input; whatever blocks give, the weights of their fades add up to one."""
    separator = Separator(gain_model({"half": 0.5, "minus": -1.0}, sample_rate=8000, context_samples=None))
    song = noise(round(seconds * 8000), 2)
    stems = separator(song, 8000)
    np.testing.assert_allclose(stems["half"], 0.5 * song, rtol=0, atol=1e-6)
    np.testing.assert_allclose(stems["minus"], -song, rtol=0, atol=1e-6)


@hypothesis.settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    # A busy machine is no fault of the code.
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
@hypothesis.given(
    num_samples=st.integers(1, 3) | st.integers(1, 20_000),
    sample_rate=st.sampled_from([8000, 11_025, 44_100, 96_000]) | st.integers(8000, 96_000),
    num_channels=st.sampled_from([1, 2, 6]),
    family=st.sampled_from(["unet_1d", "unet_2d"]),
)
def test_stems_have_the_shape_of_the_song(separators, num_samples, sample_rate, num_channels, family):
    stems = separators[family](noise(num_samples, num_channels), sample_rate)
    assert list(stems) == list(SOURCES)
    for stem in stems.values():
        assert stem.shape == (num_samples, num_channels) and stem.dtype == np.float32 and np.isfinite(stem).all()


@pytest.mark.parametrize("num_channels", [1, 2, 3, 6])
@pytest.mark.parametrize("sample_rate", [44_100, 48_000, 8000])
def test_channels_keep_their_place_and_samples_their_time(identity, num_channels, sample_rate):
    song = tone(num_channels, sample_rate)
    stems = Separator(identity)(song, sample_rate)
    tolerance = 0 if sample_rate == 44_100 else 1e-2
    inner = slice(500, -500) if tolerance else slice(None)
    for stem in stems.values():
        np.testing.assert_allclose(stem[inner], song[inner], rtol=0, atol=tolerance)


def test_the_command_gives_16_bit_audio_back_bit_for_bit(run, identity, tmp_path):
    samples = np.random.default_rng(0).integers(-(2**15), 2**15, (LENGTH, 2)).astype(np.int16)
    samples[:2] = [[-(2**15), 2**15 - 1], [1, -1]]
    song, output = tmp_path / "song.wav", tmp_path / "out" / "stems"
    soundfile.write(song, samples, 44_100, "PCM_16")
    outcome = run("sepnet.separate", song, "--model", identity, "-o", output)
    assert outcome.status == 0, outcome.stderr
    assert sorted(path.name for path in output.iterdir()) == ["rest.wav", "vocals.wav"]
    assert outcome.stdout.split() == [str(output / "vocals.wav"), str(output / "rest.wav")]
    for source in GAINS:
        assert soundfile.info(output / f"{source}.wav").subtype == "PCM_16"
        stem, sample_rate = soundfile.read(output / f"{source}.wav", dtype="int16")
        assert sample_rate == 44_100
        np.testing.assert_array_equal(stem, samples)


@pytest.mark.parametrize(
    ("name", "subtype", "stem_subtype"),
    [
        ("song.wav", "PCM_16", "PCM_16"),
        ("song.wav", "PCM_24", "PCM_24"),
        ("song.wav", "FLOAT", "FLOAT"),
        ("song.flac", "PCM_24", "PCM_24"),
        ("song.mp3", "MPEG_LAYER_III", "PCM_16"),
        ("song.ogg", "VORBIS", "PCM_16"),
        ("song.m4a", "", "PCM_16"),
    ],
)
def test_stems_have_length_rate_and_channels_of_any_format(exported, tmp_path, name, subtype, stem_subtype):
    song, sample_rate = tmp_path / name, 22_050
    if name.endswith("m4a"):
        write_m4a(song, tone(2, sample_rate), sample_rate)
        decoded = read_m4a(song)
    else:
        soundfile.write(song, tone(2, sample_rate), sample_rate, subtype)
        decoded, _ = soundfile.read(song)
    assert len(decoded) == LENGTH or name.endswith(("m4a", "mp3"))
    separate([str(song), "--model", str(exported["unet_1d"]), "-o", str(tmp_path / "stems")])
    for source in SOURCES:
        info = soundfile.info(tmp_path / "stems" / f"{source}.wav")
        assert (info.frames, info.samplerate, info.channels) == (len(decoded), sample_rate, 2)
        assert (info.format, info.subtype) == ("WAV", stem_subtype)


def test_the_audio_of_a_lossy_song_is_what_its_decoder_gives(identity, tmp_path):
    song = tmp_path / "song.m4a"
    write_m4a(song, tone(2, 44_100), 44_100)
    separate([str(song), "--model", str(identity), "-o", str(tmp_path)])
    stem, _ = soundfile.read(tmp_path / "vocals.wav")
    np.testing.assert_allclose(stem, read_m4a(song), rtol=0, atol=1 / 32768)


def test_stems_that_would_clip_are_made_softer_together(gain_model, tmp_path, capsys):
    model = gain_model({"loud": 4.0, "soft": 0.5}, sample_rate=44_100)
    song = tone(2, 44_100)
    for encoding, gain in (("PCM_16", 0.5), ("FLOAT", 1.0)):
        path, output = tmp_path / f"{encoding}.wav", tmp_path / encoding
        soundfile.write(path, song, 44_100, encoding)
        separate([str(path), "--model", str(model), "-o", str(output)])
        assert ("6.0 dB softer" in capsys.readouterr().out) == (gain < 1)
        for source, factor in {"loud": 4.0, "soft": 0.5}.items():
            stem, _ = soundfile.read(output / f"{source}.wav")
            np.testing.assert_allclose(stem, gain * factor * song, rtol=0, atol=3e-4)


def test_stems_that_are_there_are_replaced(identity, tmp_path):
    output = tmp_path / "stems"
    for num_samples in (300, 200):
        soundfile.write(tmp_path / "song.wav", tone(1, 44_100, num_samples), 44_100)
        separate([str(tmp_path / "song.wav"), "--model", str(identity), "-o", str(output)])
        assert {path.name: soundfile.info(path).frames for path in output.iterdir()} == {
            "vocals.wav": num_samples,
            "rest.wav": num_samples,
        }
