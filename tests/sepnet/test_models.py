"""Both families: shapes, sizes, and options that train together."""

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
from tests.sepnet.helpers import CONTEXT_WAYS, SOURCES, noise, small_network, stacked

SIZES = {"down_kernel_size": (5, 4), "up_kernel_size": (5, 2), "convolutions": (1, 2), "dropout": (0.0, 0.5)}
SWITCHES = {"recompute": (False, True), "wiener": (False, True)}


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
    switches = {name: SWITCHES[name] for name in FAMILIES[family].__dataclass_fields__ if name in SWITCHES}
    cases = random.Random(0).sample(list(combinations(family, **SIZES, **switches)), 500)
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
def test_recomputing_activations_changes_no_weight(family):
    trained = []
    for recompute in (False, True):
        network = small_network(family, recompute=recompute)
        trainer = Trainer(network, SOURCES)
        trainer.compile(optimizer=keras.optimizers.SGD(1.0), run_eagerly=True)
        trainer.train_on_batch({"sources": (noise(2, len(SOURCES), 200, 2) * 20_000).astype(np.int16)})
        trained.append([np.array(variable) for variable in network.model.trainable_variables])
    for plain, recomputed in zip(*trained, strict=True):
        np.testing.assert_allclose(recomputed, plain, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("family", "options"),
    [
        *((family, {"output": output}) for family in FAMILIES for output in ("softmax_mask", "difference")),
        *(("unet_2d", {"output": output, "wiener": True}) for output in ("direct", "mask")),
    ],
)
def test_stems_add_up_to_the_mixture(family, options):
    mixture = noise(2, 777, 2)
    stems = stacked(small_network(family, **options).model(mixture))
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
