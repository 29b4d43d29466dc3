"""The samples that an output depends on, and blocks of a song that give what the whole gives."""

import numpy as np
import pytest

from sepnet.models import FAMILIES
from tests.sepnet.helpers import BLOCK_FAMILIES, CONTEXT_WAYS, WAYS, noise, small_network, stacked


def with_positive_kernels(network):
    """Random kernels without a sign, so that nothing that reaches an output can cancel on its way."""
    generator = np.random.default_rng(0)
    for variable in network.model.trainable_variables:
        if variable.name == "kernel":
            scale = np.sqrt(np.prod(variable.shape[:-1]))
            variable.assign(np.abs(generator.normal(size=variable.shape)) / scale)
    return network


def extent(network):
    """The largest distance from one changed sample at which outputs change, over all places of the grid."""
    middle = 3 * network.reach_samples // 2 // network.grid_samples * network.grid_samples
    places = np.arange(middle, middle + network.grid_samples, max(network.grid_samples // 8, 1))
    songs = np.repeat(noise(1, 2 * middle, 2), 1 + len(places), axis=0)
    songs[1 + np.arange(len(places)), places] += 1000.0
    # One by one: in a batch, the last values of an array may be computed otherwise than those in its middle.
    stems = np.concatenate([stacked(network.model(song[None])) for song in songs])
    changed = (stems[1:] != stems[:1]).any(axis=(2, 3))
    return max(np.abs(np.flatnonzero(row) - place).max() for row, place in zip(changed, places, strict=True))


PADDED = [
    *((family, way, {}) for family in BLOCK_FAMILIES for way in WAYS),
    *(("unet_2d", ("pooled", "linear"), {"body": body}) for body in ("jansson", "spleeter")),
]
VALID = [("unet_1d", way, {"padding": "valid"}) for way in CONTEXT_WAYS]


@pytest.mark.parametrize(
    ("family", "way", "padding", "kernels"),
    [
        *((*case, (5, 5)) for case in PADDED + VALID),
        *(pytest.param(*case, (2, 4), marks=pytest.mark.slow) for case in PADDED),
        *(pytest.param(*case, (3, 1), marks=pytest.mark.slow) for case in VALID),
    ],
)
def test_context_is_all_that_an_output_can_depend_on(family, way, padding, kernels):
    ways = {"downsampling": way[0], "upsampling": way[1]} if "body" not in padding else {}
    sizes = {"depth": 3, "down_kernel_size": kernels[0], "up_kernel_size": kernels[1]}
    network = small_network(family, normalization="none", output="direct", **ways, **padding, **sizes)
    farthest = extent(with_positive_kernels(network))
    assert network.reach_samples % network.grid_samples == 0
    # (Places are sampled, and windows begin and end near zero.)
    assert farthest <= network.reach_samples <= 1.2 * farthest + network.grid_samples


# Networks whose levels are no blocks, and blocks on folded frequency, as by default.
OTHERS = [
    ("unet_2d", {"subbands": 4, "output": "direct"}),
    *(
        ("unet_2d", {"body": "tfc_tdf", "block": block, "subbands": 2, "time_levels": levels, "output": "spectra"})
        for block in ("plain", "dense", "residual")
        for levels in (3, 1)
    ),
    *(("unet_hybrid", {"branches": branches}) for branches in ("both", "waveform", "spectrum")),
    ("unet_hybrid", {"shared_levels": 2, "residual_branches": 0}),
]


@pytest.mark.parametrize(("family", "options"), OTHERS)
def test_context_of_other_networks_is_all_that_an_output_can_depend_on(family, options):
    network = small_network(family, normalization="none", **options)
    farthest = extent(with_positive_kernels(network))
    assert network.reach_samples % network.grid_samples == 0
    assert farthest <= network.reach_samples <= 1.2 * farthest + network.grid_samples


@pytest.mark.parametrize("normalization", ["frame", pytest.param("batch", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("family", "options"), OTHERS)
def test_blocks_of_other_networks_give_what_the_whole_gives(family, options, normalization):
    check_a_block(small_network(family, normalization=normalization, **options))


@pytest.mark.parametrize("family", FAMILIES)
def test_context_of_group_normalisation_has_no_end(family):
    assert small_network(family, normalization="group").reach_samples is None
    assert small_network(family, normalization="batch").reach_samples > 0


@pytest.mark.parametrize("family", BLOCK_FAMILIES)
@pytest.mark.parametrize(("downsampling", "upsampling"), WAYS)
def test_a_block_on_the_grid_gives_what_the_whole_gives(family, downsampling, upsampling):
    check_a_block(small_network(family, depth=3, convolutions=2, downsampling=downsampling, upsampling=upsampling))


def check_a_block(network):
    """A block from the middle of a song, with what its network reaches around it, against the whole song."""
    context, grid = network.reach_samples, network.grid_samples
    start, length = context + 3 * grid, 2 * grid + 5
    song = noise(1, start + length + context + 101, 2)
    whole = stacked(network.model(song))[:, start : start + length]
    block = stacked(network.model(song[:, start - context : start + length + context]))[:, context : context + length]
    # Without batches to normalise by, deep networks of small kernels give small values.
    size = np.abs(whole).max()
    assert size > 0
    np.testing.assert_allclose(block, whole, rtol=0, atol=1e-5 * min(size, 1.0))


@pytest.mark.parametrize(("downsampling", "upsampling"), CONTEXT_WAYS)
def test_training_with_context_sees_what_the_whole_song_gives(downsampling, upsampling):
    ways = {"downsampling": downsampling, "upsampling": upsampling}
    network = small_network("unet_1d", depth=3, padding="valid", **ways)
    length, margin = network.training_samples(100), network.margin_samples
    assert 100 <= length < 100 + network.grid_samples and margin > 0
    start = 40 * network.grid_samples
    song = noise(1, start + length + margin + 99, 2)
    core = stacked(network.core(song[:, start - margin : start + length + margin]))
    assert np.abs(core).max() > 1e-3
    np.testing.assert_allclose(core, stacked(network.model(song))[:, start : start + length], rtol=0, atol=1e-5)


def test_sizes_with_context_are_those_of_the_paper():
    """Stoller, Ewert, Dixon 2018: with 12 levels, 147,443 samples go in and 16,389 come out."""
    network = small_network("unet_1d", depth=12, base_filters=1, down_kernel_size=15, padding="valid")
    assert network.training_samples(16_389) == 16_389
    assert 16_389 + 2 * network.margin_samples == 147_443
