"""Audio of any length, rate and channels in; stems of exactly that shape out, at once, in blocks and live."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from pipelines.errors import UserError
from sepnet import Separator
from tests.sepnet.helpers import EXPORTED, SAMPLE_RATE, SOURCES, noise, stacked, tone

SETTINGS = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    # A busy machine is no fault of the code.
    "suppress_health_check": [hypothesis.HealthCheck.too_slow],
}


@pytest.fixture(scope="module")
def separators(exported):
    return {family: Separator(folder) for family, folder in exported.items()}


@pytest.mark.parametrize("family", EXPORTED)
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


class TwoGrids:
    """Two networks in one: of every two samples the first, and of every three; the contexts are theirs."""

    name = "two grids"
    contract = {"sources": ["sum"], "sample_rate": 100, "num_channels": 1, "grid_samples": 6, "context_samples": 4}

    def __call__(self, mixture):
        places = np.arange(mixture.shape[1])
        return {"sum": mixture[:, places // 2 * 2] + mixture[:, places // 3 * 3]}


def test_blocks_of_a_model_of_several_networks_lie_on_the_grid_of_each():
    song = noise(100, 1)
    [whole] = TwoGrids()(song[None])["sum"]
    np.testing.assert_array_equal(Separator(TwoGrids(), block_seconds=0.12)(song, 100)["sum"], whole)


@pytest.mark.parametrize("seconds", [3, 10, 10.0001, 19.5, 28.3])
def test_blocks_without_an_end_to_their_context_fade_into_each_other(gain_model, seconds):
    """Group normalisation looks at all of its input; whatever blocks give, the weights of their fades add up to one."""
    separator = Separator(gain_model({"half": 0.5, "minus": -1.0}, sample_rate=8000, context_samples=None))
    song = noise(round(seconds * 8000), 2)
    stems = separator(song, 8000)
    np.testing.assert_allclose(stems["half"], 0.5 * song, rtol=0, atol=1e-6)
    np.testing.assert_allclose(stems["minus"], -song, rtol=0, atol=1e-6)


@hypothesis.settings(max_examples=25, **SETTINGS)
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
    song = tone(num_channels, sample_rate, 30_011)
    stems = Separator(identity)(song, sample_rate)
    tolerance = 0 if sample_rate == 44_100 else 1e-2
    inner = slice(500, -500) if tolerance else slice(None)
    for stem in stems.values():
        np.testing.assert_allclose(stem[inner], song[inner], rtol=0, atol=tolerance)


@hypothesis.settings(max_examples=25, **SETTINGS)
@hypothesis.given(
    num_samples=st.integers(1, 3) | st.integers(1, 20_000),
    chunk_samples=st.integers(50, 5000),
    block_seconds=st.floats(0.05, 1),
    family=st.sampled_from(list(EXPORTED)),
)
def test_any_blocks_give_what_the_whole_gives(separators, networks, num_samples, chunk_samples, block_seconds, family):
    song = noise(num_samples, 2)
    chunks = [song[start : start + chunk_samples] for start in range(0, num_samples, chunk_samples)]
    separator = Separator(separators[family].model, block_seconds=block_seconds)
    blocks = list(separator.separate_blocks(chunks, SAMPLE_RATE, 2))
    joined = {source: np.concatenate([block[source] for block in blocks])[None] for source in SOURCES}
    np.testing.assert_allclose(stacked(joined), stacked(networks[family].model(song[None])), rtol=0, atol=1e-5)


@pytest.mark.parametrize("sample_rate", [SAMPLE_RATE, 44_100])
@pytest.mark.parametrize("family", ["unet_1d", "unet_2d"])
def test_live_input_comes_out_within_the_stated_latency(exported, family, sample_rate):
    separator = Separator(exported[family], block_seconds=0.05)
    chunk, sent = sample_rate // 100, 0
    resampling_seconds = 0 if sample_rate == SAMPLE_RATE else 0.25

    def live():
        nonlocal sent
        for index in range(100):
            sent += chunk
            yield noise(chunk, 2, seed=index)

    received, late = 0, []
    for stems in separator.separate_blocks(live(), sample_rate, 2):
        num_samples = len(stems["vocals"])
        if num_samples:
            late.append((sent - received) / sample_rate)
        received += num_samples
    assert received == sent
    # The last samples wait for the end of the input.
    assert max(late[:-1]) <= separator.latency_seconds + chunk / sample_rate + resampling_seconds
    assert separator.latency_seconds < 0.5 and len(late) > 5


def test_too_much_context_fades_and_says_so(gain_model):
    separator = Separator(gain_model({"half": 0.5}, sample_rate=8000, context_samples=16 * 8000))
    assert not separator.is_exact and "looks 16 s ahead" in separator.caution
    song = noise(25 * 8000, 1)
    np.testing.assert_allclose(separator(song, 8000)["half"], 0.5 * song, rtol=0, atol=1e-6)
    assert Separator(gain_model({"half": 0.5}, sample_rate=8000)).caution == ""


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros(100, np.float32), r"shape \[100\]; expected \[num_samples, num_channels\]"),
        (np.array([[0.0], [0.0], [np.nan]]), "NaN or infinity, first at 0.002 s"),
        (np.array([[0.0], [-np.inf]]), "NaN or infinity, first at 0.001 s"),
        (np.array([[0.0, 0.0], [0.0, -1e25]]), r"1e\+25 times full scale, first at 0.001 s"),
        # The layout of librosa and torchaudio.
        (np.zeros((2, 2000), np.float32), r"shape \[2, 2000\]; expected \[num_samples, num_channels\]"),
        (np.zeros((2, 60), np.float32), r"shape \[2, 60\]; expected \[num_samples, num_channels\]"),
        (np.zeros((1, 44_100), np.float32), r"shape \[1, 44100\]"),
        (np.zeros((2000, 65), np.float32), "65 channels at 1000 Hz; .* 1 to 64 channels"),
        (np.zeros((2000, 0), np.float32), "0 channels"),
        (np.zeros((1, 2, 2000), np.float32), r"shape \[1, 2, 2000\]"),
    ],
)
def test_audio_that_is_none_is_refused(identity, audio, message):
    with pytest.raises(UserError, match=message):
        Separator(identity)(audio, 1000)


@pytest.mark.parametrize(
    ("shape", "sample_rate", "num_channels", "message"),
    [
        ((2, 2000), 1000, 2, r"a block has shape \[2, 2000\]; expected \[num_samples, 2\]"),
        ((2, 2000), 1000, 2000, "2000 channels at 1000 Hz; .* 1 to 64 channels"),
        ((2000,), 1000, 1, r"a block has shape \[2000\]; expected \[num_samples, 1\]"),
        ((2000, 2), 1000, 1, r"a block has shape \[2000, 2\]; expected \[num_samples, 1\]"),
        ((2000, 2), 0, 2, "a rate above 0"),
    ],
)
def test_blocks_that_are_none_are_refused(identity, shape, sample_rate, num_channels, message):
    blocks = [np.zeros(shape, np.float32)]
    with pytest.raises(UserError, match=message) as caught:
        list(Separator(identity).separate_blocks(blocks, sample_rate, num_channels))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(1, 2), (1, 6), (7, 8), (64, 64), (0, 2)])
def test_signals_may_be_shorter_than_a_usual_number_of_channels(identity, shape):
    audio = noise(*shape)
    np.testing.assert_array_equal(Separator(identity)(audio, 44_100)["vocals"], audio)


def test_the_place_of_what_is_no_sound_is_that_in_the_whole(identity, gain_model):
    blocks = [noise(3000, 2) for _ in range(4)]
    blocks[2][500, 0] = np.inf
    with pytest.raises(UserError, match="first at 6.500 s"):
        list(Separator(identity).separate_blocks(blocks, 1000, 2))
    loud = [np.full((3000, 2), level, np.float32) for level in (0, 0, 1, 0)]
    model = gain_model({"fine": 1.0, "broken": 1e20}, sample_rate=1000)
    with pytest.raises(UserError, match=r"makes 1e\+20 times full scale of the audio as broken, first at 6.000 s"):
        list(Separator(model, block_seconds=1).separate_blocks(loud, 1000, 2))


def test_block_seconds_must_be_positive(identity):
    with pytest.raises(UserError, match="block_seconds is 0"):
        Separator(identity, block_seconds=0)
