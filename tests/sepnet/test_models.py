"""Both families: shapes, sizes, options, and what blocks of a song see of the whole."""

import dataclasses
import itertools
import random

import keras
import numpy as np
import pytest

from pipelines.errors import UserError
from sepnet.config import FAMILIES, Unet1D
from sepnet.models import builder
from sepnet.trainer import Trainer
from tests.sepnet.helpers import SOURCES, noise, small_network, stacked

WAYS = list(itertools.product(("decimate", "filtered", "strided", "pooled"), ("linear", "learned", "transposed")))
# With context the sizes of Wave-U-Net: only these keep the grid without padding.
CONTEXT_WAYS = [(down, up) for down, up in WAYS if down in ("decimate", "filtered") and up != "transposed"]
SIZES = {"down_kernel_size": (5, 4), "up_kernel_size": (5, 2), "convolutions": (1, 2), "dropout": (0.0, 0.5)}


def combinations(family, **more):
    """All combinations of the options that make a model."""
    choices = {field.name: field.metadata["choices"] for field in dataclasses.fields(FAMILIES[family])}
    values = {**{name: values for name, values in choices.items() if values}, **more}
    if family == "unet_2d":
        values["num_mel_bands"] = (None, 8)
    for combination in itertools.product(*values.values()):
        options = dict(zip(values, combination, strict=True))
        refused = options.get("num_mel_bands") and "mask" not in options["output"]
        if options.get("padding") == "context":
            even = options.get("down_kernel_size", 5) % 2 == 0 or options.get("up_kernel_size", 5) % 2 == 0
            refused = even or (options["downsampling"], options["upsampling"]) not in CONTEXT_WAYS
        if not refused:
            yield options


def pairwise(family):
    """A few combinations in which any two values of two options occur together if they can at all."""
    # So many hold every pair, and choosing the best of them at each step leaves few.
    cases = random.Random(0).sample(list(combinations(family, **SIZES)), 500)
    pairs = [set(itertools.combinations(options.items(), 2)) for options in cases]
    missing = set().union(*pairs)
    while missing:
        best = max(range(len(cases)), key=lambda index: len(pairs[index] & missing))
        missing -= pairs[best]
        yield pytest.param(family, cases[best], id="-".join(map(str, (family, *cases[best].values()))))


def check_that_it_trains(family, options):
    """One step on noise moves every weight, and leaves estimates of the right shape."""
    network = small_network(family, **options)
    trainer = Trainer(network, SOURCES)
    trainer.compile(optimizer=keras.optimizers.Adam(1e-2), run_eagerly=True)
    num_samples = network.training_samples(201) + 2 * network.margin_samples
    sources = (noise(2, len(SOURCES), num_samples, 2) * 20_000).astype(np.int16)
    before = [np.array(variable) for variable in network.model.trainable_variables]
    logs = trainer.train_on_batch({"sources": sources}, return_dict=True)
    moved = [np.any(np.array(now) != was) for now, was in zip(network.model.trainable_variables, before, strict=True)]
    assert np.isfinite(logs["loss"]) and all(moved)
    outputs = stacked(network.model(noise(1, 77, 2)))
    assert outputs.shape == (1, 77, len(SOURCES), 2) and np.isfinite(outputs).all()


def with_positive_kernels(network):
    """Random kernels without a sign, so that nothing that reaches an output can cancel on its way."""
    generator = np.random.default_rng(0)
    for variable in network.model.trainable_variables:
        if variable.name == "kernel":
            scale = np.sqrt(np.prod(variable.shape[:-1]))
            variable.assign(np.abs(generator.normal(size=variable.shape)) / scale)
    return network


def extent(network):
    """How far from one changed sample outputs change, at the most, over all places of the grid."""
    middle = 3 * network.context_samples // 2 // network.grid_samples * network.grid_samples
    places = np.arange(middle, middle + network.grid_samples, max(network.grid_samples // 8, 1))
    songs = np.repeat(noise(1, 2 * middle, 2), 1 + len(places), axis=0)
    songs[1 + np.arange(len(places)), places] += 1000.0
    stems = stacked(network.model(songs))
    changed = (stems[1:] != stems[:1]).any(axis=(2, 3))
    return max(np.abs(np.flatnonzero(row) - place).max() for row, place in zip(changed, places, strict=True))


@pytest.mark.parametrize("depth", range(1, 7))
@pytest.mark.parametrize("family", FAMILIES)
def test_any_depth_gives_back_any_length(family, depth):
    model = small_network(family, depth=depth, base_filters=1, num_channels=1, sources=("speech", "noise")).model
    for num_samples in (1, 37, 501):
        stems = model(noise(2, num_samples, 1))
        assert list(stems) == ["speech", "noise"]
        assert all(stem.shape == (2, num_samples, 1) for stem in stems.values())


@pytest.mark.parametrize(("depth", "expected"), [(3, 272_040), (6, 1_554_432), (12, 10_263_552)])
def test_unet_1d_has_the_parameters_of_wave_u_net(depth, expected):
    """24 filters more a level, kernels of 15 down and 5 up, then a kernel of 1 on features and mixture (stereo)."""
    filters = [24 * level for level in range(1, depth + 2)]
    inputs = [2, *filters]
    down = sum(15 * inputs[level] * filters[level] + filters[level] for level in range(depth + 1))
    up = sum(5 * (filters[level + 1] + filters[level]) * filters[level] + filters[level] for level in range(depth))
    assert down + up + (24 + 2) * 4 * 2 + 4 * 2 == expected
    section = dataclasses.asdict(Unet1D(depth=depth))
    network = builder("unet_1d")(sources=tuple("abcd"), num_channels=2, sample_rate=44_100, **section)
    assert network.model.count_params() == expected


@pytest.mark.parametrize(("family", "options"), [case for family in FAMILIES for case in pairwise(family)])
def test_any_two_options_train_together(family, options):
    check_that_it_trains(family, options)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("family", FAMILIES)
def test_all_options_train_together(family):
    for options in combinations(family):
        check_that_it_trains(family, options)


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("unet_2d", {"num_mel_bands": 8, "output": "direct"}, "--output direct needs the bins"),
        ("unet_1d", {"padding": "context", "downsampling": "pooled"}, "--padding context does not go with"),
        ("unet_1d", {"padding": "context", "upsampling": "transposed"}, "--padding context does not go with"),
        ("unet_1d", {"padding": "context", "up_kernel_size": 4}, "does not go with kernels of 15 and 4"),
    ],
)
def test_options_that_do_not_go_together_are_refused(family, options, message):
    with pytest.raises(UserError, match=message):
        small_network(family, **options)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("output", ["softmax_mask", "difference"])
def test_stems_add_up_to_the_mixture(family, output):
    mixture = noise(2, 777, 2)
    stems = stacked(small_network(family, output=output).model(mixture))
    assert np.ptp(stems, axis=2).max() > 1e-3
    np.testing.assert_allclose(stems.sum(axis=2), mixture, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("family", "options"), [("unet_1d", {}), ("unet_2d", {}), ("unet_2d", {"num_mel_bands": 8})])
def test_masks_of_one_give_the_mixture_back(family, options):
    model = small_network(family, output="mask", **options).model
    [bias] = [variable for variable in model.trainable_variables if variable.path.endswith("stems/bias")]
    bias.assign(np.full(2 * len(SOURCES), 1000.0))
    mixture = noise(2, 777, 2)
    for stem in model(mixture).values():
        np.testing.assert_allclose(stem, mixture, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("family", "way", "kernels", "padding"),
    [
        *(("unet_1d", way, kernels, {}) for way in WAYS for kernels in ((5, 5), (2, 4))),
        *(("unet_1d", way, kernels, {"padding": "context"}) for way in CONTEXT_WAYS for kernels in ((5, 5), (3, 1))),
        *(("unet_2d", way, kernels, {}) for way in WAYS for kernels in ((5, 5), (2, 4))),
    ],
)
def test_context_is_all_that_an_output_can_depend_on(family, way, kernels, padding):
    ways = {"downsampling": way[0], "upsampling": way[1], **padding}
    sizes = {"depth": 3, "down_kernel_size": kernels[0], "up_kernel_size": kernels[1]}
    network = small_network(family, normalization="none", output="direct", **ways, **sizes)
    farthest = extent(with_positive_kernels(network))
    assert network.context_samples % network.grid_samples == 0
    assert farthest <= network.context_samples <= 3 * farthest


@pytest.mark.parametrize("family", FAMILIES)
def test_context_of_group_normalisation_has_no_end(family):
    assert small_network(family, normalization="group").context_samples is None
    assert small_network(family, normalization="batch", convolutions=2).context_samples > 0


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("downsampling", "upsampling"), WAYS)
def test_a_block_on_the_grid_gives_what_the_whole_gives(family, downsampling, upsampling):
    network = small_network(family, depth=3, convolutions=2, downsampling=downsampling, upsampling=upsampling)
    context, grid = network.context_samples, network.grid_samples
    start, length = context + 3 * grid, 2 * grid + 5
    song = noise(1, start + length + context + 101, 2)
    whole = stacked(network.model(song))[:, start : start + length]
    block = stacked(network.model(song[:, start - context : start + length + context]))[:, context : context + length]
    assert np.abs(whole).max() > 1e-3
    np.testing.assert_allclose(block, whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("downsampling", "upsampling"), CONTEXT_WAYS)
def test_training_with_context_sees_what_the_whole_song_gives(downsampling, upsampling):
    ways = {"downsampling": downsampling, "upsampling": upsampling}
    network = small_network("unet_1d", depth=3, padding="context", **ways)
    length, margin = network.training_samples(100), network.margin_samples
    assert 100 <= length < 100 + network.grid_samples and margin > 0
    start = 40 * network.grid_samples
    song = noise(1, start + length + margin + 99, 2)
    core = stacked(network.core(song[:, start - margin : start + length + margin]))
    assert np.abs(core).max() > 1e-3
    np.testing.assert_allclose(core, stacked(network.model(song))[:, start : start + length], rtol=0, atol=1e-5)


def test_sizes_with_context_are_those_of_the_paper():
    """Stoller, Ewert, Dixon 2018: with 12 levels, 147,443 samples go in and 16,389 come out."""
    network = small_network("unet_1d", depth=12, base_filters=1, down_kernel_size=15, padding="context")
    assert network.training_samples(16_389) == 16_389
    assert 16_389 + 2 * network.margin_samples == 147_443
