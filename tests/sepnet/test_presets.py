"""Presets: the published networks, counted here from their papers and code."""

import keras
import numpy as np
import pytest

from pipelines.errors import UserError
from sepnet.config.presets import preset_names, read_preset
from sepnet.planning.untrained import untrained
from tests.sepnet.test_config import from_flags


def wave_u_net(num_channels, num_outputs, learned=False):
    """12 levels, 24 filters more a level, kernels 15 and 5; at the end the mixture is joined (after its Config.py)."""
    filters = [24 * level for level in range(1, 14)]
    inputs = [num_channels, *filters]
    total = sum((15 * inputs[level] + 1) * filters[level] for level in range(13))
    for level in range(12):
        total += (5 * (filters[level + 1] + filters[level]) + 1) * filters[level]
        total += filters[level + 1] * learned
    return total + (filters[0] + num_channels + 1) * num_outputs * num_channels


def strided(num_inputs, num_outputs, *, last):
    """6 levels of 16 to 512 filters, kernels of 5 x 5 with biases, batch normalisation with four numbers a filter."""
    filters = [16, 32, 64, 128, 256, 512]
    inputs = [num_inputs, *filters]
    total = sum((25 * inputs[level] + 1) * filters[level] + 4 * filters[level] for level in range(6))
    # The way up sees what came up beside what went down, from its second level on.
    seen = [512, 512, 256, 128, 64]
    total += sum((25 * many + 1) * few + 4 * few for many, few in zip(seen, [256, 128, 64, 32, 16], strict=True))
    return total + last(32, num_outputs)


def jansson():
    """One channel in, a mask out of the last transposed convolution; two networks."""
    return 2 * strided(1, 1, last=lambda features, outputs: (25 * features + 1) * outputs)


def spleeter():
    """Two channels; the last transposed convolution gives one, then 4 x 4; the deepest normalisation has no use."""
    last = lambda features, outputs: (25 * features + 1) + 4 + (16 * 1 + 1) * outputs  # noqa: E731
    return 4 * (strided(2, 2, last=last) - 4 * 512)


def spectrogram_channels():
    """Blocks of two 3 x 3 convolutions with batch normalisation, 32 to 512 filters, 5 x 5 up, four sources out."""

    def block(features, filters):
        return 9 * features * filters + 4 * filters + 9 * filters * filters + 4 * filters

    total = block(1, 32) + block(32, 64) + block(64, 128) + block(128, 256) + block(256, 512)
    for deeper, filters in ((512, 256), (256, 128), (128, 64), (64, 32)):
        total += (25 * deeper + 1) * filters + block(2 * filters, filters)
    return total + (32 + 1) * 4


def tfc_tdf_v1():
    """9 blocks of 24 filters: five 3 x 3 convolutions, each on all before it, and two matrices along frequency."""

    def block(features, bins):
        convolutions = sum(9 * (features + 24 * index) * 24 + 4 * 24 for index in range(5))
        return convolutions + 2 * bins * max(bins // 16, 16) + 2 * 4 * 24

    bins = [2048 // 2**level for level in range(5)]
    scales = 2 * 4 * (4 * 24 * 24 + 4 * 24)
    total = sum(block(24, count) for count in bins) + sum(block(48, count) for count in bins[:-1])
    return 4 * ((4 * 24 + 4 * 24) + total + scales + (24 + 1) * 4)


def tfc_tdf_v2():
    """11 blocks of 32 to 192 filters: three 3 x 3 convolutions and two matrices along frequency over an eighth."""
    filters, bins = [32 * (level + 1) for level in range(6)], [2048 // 2**level for level in range(6)]

    def block(level):
        return 3 * (9 * filters[level] ** 2 + 4 * filters[level]) + 2 * bins[level] ** 2 // 8 + 2 * 4 * filters[level]

    total = sum(2 * block(level) for level in range(5)) + block(5)
    for few, many in zip(filters, filters[1:], strict=False):
        total += 2 * 4 * few * many + 4 * many + 4 * few
    return 4 * ((4 * 32 + 4 * 32) + total + (32 + 1) * 4)


def mdx23c():
    """11 pairs of residual units of 128 to 768 filters on 1024 folded bins; two numbers of normalisation a filter."""
    filters, bins = [128 * (level + 1) for level in range(6)], [1024 // 2**level for level in range(6)]

    def unit(features, level):
        count = filters[level]
        convolutions = features * count + 2 * features + 9 * features * count + 2 * count + 9 * count * count
        return convolutions + 2 * 2 * count + 2 * bins[level] ** 2 // 4

    total = sum(3 * unit(filters[level], level) + unit(2 * filters[level], level) for level in range(5))
    total += 2 * unit(filters[5], 5)
    for few, many in zip(filters, filters[1:], strict=False):
        total += 2 * 4 * few * many + 2 * few + 2 * many
    return 16 * 128 + total + (128 + 16) * 128 + 128 * 64


PUBLISHED = {
    "wave-u-net-m1": wave_u_net(1, 2),
    "wave-u-net-m2": wave_u_net(1, 1),
    "wave-u-net-m3": wave_u_net(1, 1),
    "wave-u-net-m4": wave_u_net(2, 1),
    "wave-u-net-m5": wave_u_net(2, 1, learned=True),
    "wave-u-net-m6": wave_u_net(2, 3),
    "spectrogram-channels-unet": spectrogram_channels(),
    "jansson-unet": jansson(),
    "spleeter-4stems": spleeter(),
    "tfc-tdf-v1": tfc_tdf_v1(),
    "tfc-tdf-v2": tfc_tdf_v2(),
    "mdx23c": mdx23c(),
}


def network_of(name):
    config = read_preset(name)
    return config, config.build(config.data.sample_rate)


def segment_samples(config):
    return config.data.segment_samples(config.data.sample_rate)


def test_every_preset_is_counted():
    assert preset_names() == sorted(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_of_the_published_network(name):
    config = read_preset(name)
    assert untrained(config, config.data.sample_rate).model.count_params() == PUBLISHED[name]


@pytest.mark.parametrize("number", range(1, 7))
def test_wave_u_net_takes_and_gives_the_samples_of_the_paper(number):
    config, network = network_of(f"wave-u-net-m{number}")
    given = network.training_samples(segment_samples(config))
    assert given == segment_samples(config) == (16_384 if number < 3 else 16_389)
    assert given + 2 * network.margin_samples == (16_384 if number < 3 else 147_443)


@pytest.mark.parametrize(
    ("name", "picture"),
    [("jansson-unet", (128, 512)), ("spleeter-4stems", (512, 1024)), ("spectrogram-channels-unet", (176, 1024))],
)
def test_pictures_have_the_size_of_the_paper(name, picture):
    """The spectrogram-channels U-Net's 173 frames and 1025 bins are padded to whole multiples of 16."""
    config, network = network_of(name)
    mixture = np.zeros((1, segment_samples(config), config.data.num_channels), np.float32)
    seen = keras.Model(network.model.input, network.model.get_layer("pad").output)(mixture)
    assert tuple(seen.shape[2:]) == picture


def test_another_optimizer_takes_its_own_step_size():
    for options, rate in (
        ("--preset jansson-unet", 0.001),
        ("--preset jansson-unet --optimizer adamw", 0.001),
        ("--preset jansson-unet --optimizer muon", 0.008),
        ("--preset jansson-unet --optimizer muon --learning-rate 0.002", 0.002),
    ):
        assert from_flags(*options.split()).learning_rate == rate


def test_flags_change_a_preset():
    assert from_flags("--preset", "wave-u-net-m4") == read_preset("wave-u-net-m4")
    config = from_flags("--preset", "wave-u-net-m4", "--depth", "3", "--epochs", "1")
    assert (config.model.depth, config.training.epochs, config.model.body.padding) == (3, 1, "valid")


def test_a_preset_that_is_not_there_is_refused_and_so_is_one_of_another_family():
    with pytest.raises(UserError, match="unknown preset 'umx'; choose one of jansson-unet, "):
        from_flags("--preset", "umx")
    with pytest.raises(UserError, match="--preset jansson-unet is a unet_2d, not a unet_1d"):
        from_flags("--preset", "jansson-unet", "--family", "unet_1d")


@pytest.mark.slow
def test_a_preset_trains_on_songs_that_hold_no_accompaniment(run, tmp_path, write_song):
    """It is the sum of their other stems."""
    for split in ("train", "valid"):
        write_song(tmp_path / "songs" / split / "song", num_samples=16_000, sample_rate=8192)
    outcome = run(
        "sepnet.train", "--preset", "jansson-unet", "--data", tmp_path / "songs",
        "--segment-seconds", "1", "--depth", "2", "--epochs", "1", "--steps-per-epoch", "1", "--batch-size", "1",
        "--validation-segments", "1",
        "--runs", tmp_path / "runs", "--saved-models", tmp_path / "models", "--name", "voice",
    )  # fmt: skip
    assert outcome.status == 0, outcome.stderr
    assert "accompaniment" in outcome.stdout and (tmp_path / "models" / "voice" / "1" / "saved_model.pb").exists()
