"""All families: shapes, sizes, and options that train together."""

import functools
import itertools
import random
import shutil

import keras
import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from pipelines.errors import UserError
from sepnet.export.write import export_model
from sepnet.models import BODIES, FAMILIES, family_class
from sepnet.models.layers.convolution import NORMALIZATIONS
from sepnet.models.layers.resampling import LOW_PASS, LowPass
from sepnet.models.unet import COMPLEX_OUTPUTS
from sepnet.models.unet_1d import Unet1D
from sepnet.options.registry import load
from sepnet.training.trainer import Trainer
from tests.sepnet.helpers import (
    BLOCK_FAMILIES,
    CONTEXT_WAYS,
    SOURCES,
    contract_of,
    fresh_network,
    noise,
    small_network,
    stacked,
)

SEGMENT_SAMPLES = 201
# Values of options, beside the choices of those that have some; the first ones of a covering list hold most pairs ...
MORE = {
    "num_channels": (2, 1),
    "depth": (1, 2, 3),
    "down_kernel_size": (5, 4),
    "up_kernel_size": (5, 2),
    "convolutions": (1, 2),
    "upsampling_kernel_size": (None, 3),
    "up_activation": (None, "relu"),
    "dropout": (0.0, 0.5),
    "separate_networks": (False, True),
    "recompute": (False, True),
    "num_mel_bands": (None, 8),
    "num_bins": (None, 20),
    "wiener": (False, True),
    "subbands": (None, 1, 2),
    "time_levels": (3, 1, 0),
    "bottleneck_factor": (2, 8),
    "smallest_bottleneck": (1, 4),
    "shared_levels": (1, 0, 2),
    "residual_branches": (2, 0),
}
# ... and so many of them are tried in the quick tests.
NUM_QUICK = 1


def values_of(family):
    """The values of each option of a family and its bodies."""
    options = {name: owner.options()[name] for name, owner in family_class(family).any_options().items()}
    choices = {name: option.metadata["choices"] for name, option in options.items() if option.metadata["choices"]}
    known = {name: values for name, values in MORE.items() if name in options or name == "num_channels"}
    bodies = {"body": tuple(BODIES[family])} if family in BODIES else {}
    return {**choices, **known, **bodies}


def makes_sense(options):
    """True for options that go together, as the messages of errors say once more."""
    if options.get("padding") == "valid":
        even = options["down_kernel_size"] % 2 == 0 or options["up_kernel_size"] % 2 == 0
        return not even and (options["downsampling"], options["upsampling"]) in CONTEXT_WAYS
    if options.get("branches") == "waveform" and options["output"] != "complex_mask":
        return False
    if options.get("wiener") and options["output"] in COMPLEX_OUTPUTS:
        return False
    if options.get("num_mel_bands"):
        is_mask = options["output"] in ("mask", "softmax_mask")
        return is_mask and not options.get("num_bins") and options["features"] in ("log", "linear")
    return not options.get("num_bins") or options["output"] not in ("direct", "difference")


def of_the_body(family, options):
    """Options less those that their body lacks."""
    if family not in BODIES:
        return options
    own = {*family_class(family).options(), *load(BODIES[family], options["body"], "body").options()}
    return {name: value for name, value in options.items() if name in {*own, "body", "num_channels"}}


def case(family, options):
    """A family and options, as a parameter of a test that is named after them."""
    return pytest.param(family, options, id="-".join(map(str, (family, *options.values()))))


def drawn(family, generator):
    """Options drawn at random."""
    values = values_of(family)
    while True:
        options = {name: generator.choice(choices) for name, choices in values.items()}
        if makes_sense(options):
            return of_the_body(family, options)


@functools.cache
def covering(family, strength):
    """A few combinations in which any values of so many options occur together if they can at all."""
    # So many draws hold every pair and nearly every triple, and choosing the best of them at each step leaves few.
    generator = random.Random(0)
    cases = [drawn(family, generator) for _ in range(500 * (strength - 1))]
    groups = [set(itertools.combinations(options.items(), strength)) for options in cases]
    missing = set().union(*groups)
    chosen = []
    while missing:
        best = max(range(len(cases)), key=lambda index: len(groups[index] & missing))
        missing -= groups[best]
        chosen.append(cases[best])
    return chosen


def check_that_it_trains(family, options, folder):
    """One step on noise moves every weight; the model that is read back, and its SavedModel, give the same stems."""
    network = small_network(family, **options)
    num_channels = network.model.input_shape[-1]
    trainer = Trainer(network, SOURCES)
    trainer.compile(optimizer=keras.optimizers.Adam(1e-2), run_eagerly=True)
    num_samples = network.training_samples(SEGMENT_SAMPLES) + 2 * network.margin_samples
    sources = (noise(2, len(SOURCES), num_samples, num_channels) * 20_000).astype(np.int16)
    before = [np.array(variable) for variable in network.model.trainable_variables]
    logs = trainer.train_on_batch({"stems": sources}, return_dict=True)
    moved = [np.any(np.array(now) != was) for now, was in zip(network.model.trainable_variables, before, strict=True)]
    assert np.isfinite(logs["loss"]) and all(moved)
    mixture = noise(1, 77, num_channels)
    outputs = stacked(network.model(mixture))
    assert outputs.shape == (1, 77, len(SOURCES), num_channels) and np.isfinite(outputs).all()

    network.model.save(folder / "model.keras")
    np.testing.assert_allclose(
        stacked(keras.models.load_model(folder / "model.keras")(mixture)), outputs, rtol=0, atol=1e-6
    )
    version = export_model(network.model, folder / "saved", contract_of(network, num_channels=num_channels))
    served = tf.saved_model.load(version).signatures["serving_default"](mixture=tf.constant(mixture))
    np.testing.assert_allclose(stacked(served), outputs, rtol=0, atol=1e-5)
    shutil.rmtree(folder / "saved")


@pytest.mark.parametrize("depth", [1, 2, 5, *(pytest.param(depth, marks=pytest.mark.slow) for depth in (3, 4, 6))])
@pytest.mark.parametrize("family", FAMILIES)
def test_any_depth_gives_back_any_length(family, depth):
    model = small_network(family, depth=depth, base_filters=1, num_channels=1, sources=("speech", "noise")).model
    for num_samples in (1, 37, 501):
        stems = model(noise(2, num_samples, 1))
        assert list(stems) == ["speech", "noise"]
        assert all(stem.shape == (2, num_samples, 1) for stem in stems.values())


def test_sources_may_have_any_name():
    """In a graph, TensorFlow takes few characters in the names of layers."""
    sources = ["lead vocals", "gesäng", "a/b"]
    with tf.Graph().as_default():
        network = Unet1D(depth=1, base_filters=1).build(sources=sources, num_channels=1, sample_rate=8000)
    assert list(network.model.output) == sources


@pytest.mark.parametrize(("depth", "expected"), [(3, 272_040), (6, 1_554_432), (12, 10_263_552)])
def test_unet_1d_has_the_parameters_of_wave_u_net(depth, expected):
    """24 filters more a level, kernels of 15 down and 5 up, then a kernel of 1 on features and mixture (stereo)."""
    filters = [24 * level for level in range(1, depth + 2)]
    inputs = [2, *filters]
    down = sum(15 * inputs[level] * filters[level] + filters[level] for level in range(depth + 1))
    up = sum(5 * (filters[level + 1] + filters[level]) * filters[level] + filters[level] for level in range(depth))
    assert down + up + (24 + 2) * 4 * 2 + 4 * 2 == expected
    network = Unet1D(depth=depth).build(sources=tuple("abcd"), num_channels=2, sample_rate=44_100)
    assert network.model.count_params() == expected


@pytest.mark.parametrize(
    ("family", "options"), [case(family, options) for family in FAMILIES for options in covering(family, 2)[:NUM_QUICK]]
)
def test_any_two_options_train_and_export_together(family, options, tmp_path):
    check_that_it_trains(family, options, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "options"),
    [case(family, options) for family in FAMILIES for options in covering(family, 2)[NUM_QUICK:]],
)
def test_any_other_two_options_train_and_export_together(family, options, tmp_path):
    check_that_it_trains(family, options, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("family", FAMILIES)
def test_any_three_options_train_and_export_together(family, tmp_path):
    for options in covering(family, 3):
        # Shown if these fail.
        print(options)
        check_that_it_trains(family, options, tmp_path)


@pytest.mark.parametrize("seeds", [range(4), pytest.param(range(4, 10), marks=pytest.mark.slow)])
@pytest.mark.parametrize("separate_networks", [False, True])
@pytest.mark.parametrize("output", ["direct", "difference"])
def test_no_channel_of_magnitudes_is_silent_from_the_start(output, separate_networks, seeds):
    """One that is silent everywhere has no gradient, and would stay so."""
    for seed in seeds:
        network = small_network("unet_2d", seed=seed, output=output, separate_networks=separate_networks)
        stems = stacked(network.model(noise(1, 501, 2)))
        assert stems.any(axis=1).all()


@pytest.mark.parametrize("num_features", [1, len(LOW_PASS), len(LOW_PASS) + 1])
@pytest.mark.parametrize("axes", [(40,), (40, 33)])
def test_low_pass_is_that_of_scipy(axes, num_features):
    inputs = noise(2, *axes, num_features)
    expected = inputs
    for axis in range(1, len(axes) + 1):
        expected = scipy.ndimage.convolve1d(expected, LOW_PASS / LOW_PASS.sum(), axis=axis, mode="constant")
    np.testing.assert_allclose(LowPass(is_valid=False)(inputs), expected, rtol=0, atol=1e-6)


def test_twelve_levels_train_a_step(tmp_path):
    check_that_it_trains("unet_1d", {"depth": 12, "base_filters": 2}, tmp_path)


@pytest.mark.slow
def test_twelve_levels_train_a_step_on_pictures_of_4096_frames_and_bins(tmp_path):
    sizes = {"frame_length": 8192, "frame_step": 8, "filter_growth": "add", "base_filters": 1}
    check_that_it_trains("unet_2d", {"depth": 12, **sizes}, tmp_path)


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("unet_2d", {"num_mel_bands": 8, "output": "direct"}, "--output direct --features log needs the bins"),
        ("unet_1d", {"padding": "valid", "downsampling": "pooled"}, "--padding valid does not go with"),
        ("unet_1d", {"padding": "valid", "upsampling": "transposed"}, "--padding valid does not go with"),
        ("unet_1d", {"padding": "valid", "up_kernel_size": 4}, "does not go with kernels of 15 and 4"),
        ("unet_2d", {"num_bins": 8, "output": "direct"}, "--num-bins 8 needs --output mask"),
        ("unet_2d", {"num_bins": 8, "num_mel_bands": 8}, "--num-bins 8 needs .* no --num-mel-bands"),
        ("unet_2d", {"num_bins": 33}, "at most 32 bins with --frame-length 64"),
    ],
)
def test_options_that_do_not_go_together_are_refused(family, options, message):
    with pytest.raises(UserError, match=message):
        small_network(family, **options)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "normalization", ["renorm", *(pytest.param(name, marks=pytest.mark.slow) for name in ("batch", "group"))]
)
def test_recomputing_activations_changes_no_weight(family, normalization):
    trained = []
    for recompute in (False, True):
        network = small_network(family, recompute=recompute, normalization=normalization)
        trainer = Trainer(network, SOURCES)
        trainer.compile(optimizer=keras.optimizers.SGD(1.0), run_eagerly=True)
        trainer.train_on_batch({"stems": (noise(2, len(SOURCES), 200, 2) * 20_000).astype(np.int16)})
        # With them the moving averages of batch normalisation.
        trained.append([np.array(variable) for variable in network.model.variables])
    for plain, recomputed in zip(*trained, strict=True):
        np.testing.assert_allclose(recomputed, plain, rtol=0, atol=1e-6)


def test_batch_renormalisation_trains_what_is_used_up_to_its_bounds():
    layer = NORMALIZATIONS["renorm"](3)
    usual = np.random.default_rng(0).normal([0.0, 1.0, -1.0], [1.0, 2.0, 3.0], (4, 500, 3)).astype(np.float32)
    mean, deviation = usual.mean(axis=(0, 1)), usual.std(axis=(0, 1))
    for _ in range(200):  # the averages arrive
        layer(usual, training=True)
    other = 1.5 * usual[:2] + 0.5
    expected = (other - mean) / deviation
    assert abs(expected.std() - 1) > 0.3  # not what the batch alone would give
    np.testing.assert_allclose(layer(other, training=False), expected, atol=0.02)
    np.testing.assert_allclose(layer(other, training=True), expected, atol=0.02)
    loud = 10 * usual
    np.testing.assert_allclose(np.std(layer(loud, training=True), axis=(0, 1)), 3, rtol=1e-3)


@pytest.mark.parametrize(
    ("family", "options"),
    [
        *((family, {"output": output}) for family in BLOCK_FAMILIES for output in ("softmax_mask", "difference")),
        ("unet_2d", {"output": "consistent_mask"}),
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


@pytest.mark.parametrize("body", BODIES["unet_2d"])
@pytest.mark.parametrize("output", [name for name in COMPLEX_OUTPUTS if name != "spectra"])
def test_a_fresh_network_with_complex_masks_gives_equal_shares(output, body):
    mixture = noise(2, 777, 2)
    for stem in fresh_network("unet_2d", output=output, features="complex", body=body).model(mixture).values():
        np.testing.assert_allclose(stem, mixture / len(SOURCES), rtol=0, atol=1e-6)


@pytest.mark.parametrize("branches", ["both", "waveform", "spectrum"])
def test_a_fresh_hybrid_gives_equal_shares(branches):
    mixture = noise(2, 777, 2)
    for stem in fresh_network("unet_hybrid", branches=branches).model(mixture).values():
        np.testing.assert_allclose(stem, mixture / len(SOURCES), rtol=0, atol=1e-6)
