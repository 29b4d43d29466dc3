"""Costs known beforehand against the models themselves: counted, probed and measured."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from benchmarks.memory import SAMPLE_RATE, configs, describe, make_config, measure
from sepnet.config.config import Config
from sepnet.config.data import Data
from sepnet.config.training import Training
from sepnet.models import FAMILIES, family_class
from sepnet.planning.costs import count_costs, flops
from sepnet.planning.step_memory import separation_bytes, training_bytes
from sepnet.separation.separator import BLOCK_SECONDS
from tests.sepnet.helpers import BLOCK_FAMILIES, noise, small_network
from tests.sepnet.test_context import with_positive_kernels
from tests.sepnet.test_models import NUM_QUICK, case, covering

WAYS = [
    {},
    {"downsampling": "filtered", "upsampling": "learned"},
    {"downsampling": "strided", "upsampling": "transposed"},
    {"downsampling": "pooled", "down_kernel_size": 4, "up_kernel_size": 2},
]

# A process that measures its memory takes half a minute.
QUICK_FAMILIES = ["unet_2d", *(pytest.param(family, marks=pytest.mark.slow) for family in ("unet_1d", "unet_hybrid"))]


def config_of(family, training=None, num_channels=2, **options):
    return Config(Data(num_channels=num_channels), family_class(family)().changed(options), Training(**training or {}))


def counted_by_tensorflow(network, num_samples):
    """The operations that TensorFlow's own profiler counts in the frozen graph of the forward pass."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2_as_graph

    shape = (1, num_samples + 2 * network.margin_samples, 2)
    function = tf.function(lambda mixture: network.core(mixture)).get_concrete_function(tf.TensorSpec(shape))
    _, definition = convert_variables_to_constants_v2_as_graph(function)
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(definition, name="")
        options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
        options["output"] = "none"
        return tf.compat.v1.profiler.profile(graph=graph, cmd="op", options=options).total_float_ops


def unknown_to_tensorflow(config, num_samples):
    """Fourier transforms of 2 channels and of 4 stems with 2."""
    if config.family == "unet_1d":
        return 0
    # The default window is that of 44.1 kHz.
    step, length = config.model.frame_step or 1024, config.model.frame_length or 4096
    num_spectra = (2 + 4 * 2) * (num_samples // step + 3)
    return num_spectra * 2.5 * length * np.log2(length)


def widest_gradient(network):
    """From the first to the last sample that one output sample depends on, at the most, over all places of the grid."""
    grid = network.grid_samples
    middle = network.margin_samples + 2 * network.reach_samples // grid * grid
    length = network.training_samples(2 * middle)
    mixture = tf.constant(noise(1, length + 2 * network.margin_samples, 2))
    widest = 0
    for place in range(middle, middle + grid, max(grid // 16, 1)):
        with tf.GradientTape() as tape:
            tape.watch(mixture)
            output = tf.reduce_sum(tf.abs(stacked_tensors(network.core(mixture))[0, place]))
        seen = np.flatnonzero(np.any(tape.gradient(output, mixture)[0].numpy(), axis=-1))
        widest = max(widest, seen[-1] - seen[0] + 1)
    return widest


def stacked_tensors(stems):
    return tf.stack(list(stems.values()), axis=2)


@pytest.mark.parametrize(("depth", "expected"), [(3, 272_040), (6, 1_554_432), (12, 10_263_552)])
def test_parameters_are_those_of_wave_u_net(depth, expected):
    """The closed formula stands in test_models.py."""
    assert count_costs(config_of("unet_1d", depth=depth), 44_100).parameters == expected


@pytest.mark.parametrize(
    ("family", "options"),
    [*itertools.product(BLOCK_FAMILIES, WAYS), ("unet_2d", {"body": "tfc_tdf"}), ("unet_hybrid", {})],
)
def test_parameters_are_those_of_the_model(family, options):
    config = config_of(family, depth=3, **options)
    assert count_costs(config, 44_100).parameters == config.build(44_100).model.count_params()


@pytest.mark.parametrize(
    ("family", "options"), [case(family, options) for family in FAMILIES for options in covering(family, 2)[:NUM_QUICK]]
)
def test_any_two_options_can_be_planned(family, options):
    options = {**options, "depth": 2} | ({"frame_length": 64, "frame_step": 16} if family == "unet_2d" else {})
    config = config_of(family, {"batch_size": 2}, **options)
    planned, saving = count_costs(config, 8000), config_of(family, {"batch_size": 1}, **options)
    assert planned.parameters > 0 and planned.flops_per_second > 0
    # Beside activations a step holds weights, gradients and two moments; a separation the weights and a block's stems.
    assert planned.training_bytes > training_bytes(saving, 8000) > 4 * 4 * planned.parameters
    stems = BLOCK_SECONDS * 8000 * len(config.data.sources) * config.data.num_channels
    assert planned.separation_bytes > 4 * (planned.parameters + stems)


@pytest.mark.parametrize(
    ("family", "options", "depth"),
    [
        pytest.param(*case, depth, marks=() if depth == 3 else pytest.mark.slow)
        for case in (
            *[("unet_1d", way) for way in WAYS],
            ("unet_1d", {"padding": "valid"}),
            ("unet_2d", {"subbands": 1}),
            ("unet_2d", {}),
            ("unet_2d", {"downsampling": "strided", "upsampling": "transposed", "num_mel_bands": 128}),
            ("unet_2d", {"body": "jansson", "output": "mask", "base_filters": 48}),
            ("unet_2d", {"body": "spleeter", "separate_networks": True, "base_filters": 48}),
        )
        # One level of these is so cheap that masks and activations, which TensorFlow counts, are over 2% of it.
        for depth in ((3, 6) if "body" in case[1] or case == ("unet_2d", {}) else (1, 3, 6))
    ],
)
def test_flops_are_those_that_tensorflow_counts(family, options, depth):
    config = config_of(family, depth=depth, **options)
    network = config.build(44_100)
    num_samples = network.training_samples(16_384)
    expected = counted_by_tensorflow(network, num_samples) + unknown_to_tensorflow(config, num_samples)
    assert flops(network, num_samples) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(
    ("family", "options"),
    [
        *itertools.product(BLOCK_FAMILIES, WAYS),
        ("unet_1d", {"padding": "valid"}),
        ("unet_2d", {"body": "jansson"}),
        ("unet_2d", {"body": "spleeter", "up_kernel_size": 4}),
    ],
)
def test_receptive_field_is_what_a_gradient_sees(family, options):
    network = small_network(family, depth=2, output="direct", normalization="none", activation="elu", **options)
    assert network.receptive_field_samples == widest_gradient(with_positive_kernels(network))


def test_receptive_field_of_group_normalisation_has_no_end():
    assert small_network("unet_1d", normalization="group").receptive_field_samples is None


def test_weights_are_not_made():
    """145 thousand million parameters fit no machine that runs this test."""
    config = config_of("unet_1d", depth=12, filter_growth="double")
    assert count_costs(config, 44_100).parameters > 1e11
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.parametrize("family", QUICK_FAMILIES)
def test_what_saves_memory_says_so(family):
    plain = training_bytes(config_of(family, depth=4), 44_100)
    assert training_bytes(config_of(family, depth=4, recompute=True), 44_100) < plain
    for training in ({"precision": "mixed_bfloat16"}, {"batch_size": 1, "accumulation": 4}, {"ema": 0.0}):
        assert training_bytes(config_of(family, training, depth=4), 44_100) < plain


@pytest.mark.parametrize("family", QUICK_FAMILIES)
def test_memory_of_separating_is_what_a_block_takes(family):
    config = config_of(family, depth=5)
    measured = measure(config, separate=True)
    assert separation_bytes(config, SAMPLE_RATE, "cpu") == pytest.approx(measured["process_bytes"], rel=0.2)
    # On lesser processors oneDNN first writes a convolution's input as a matrix, which no GPU does.
    if "AVX512_SKX" in np.show_config(mode="dicts")["SIMD Extensions"]["found"]:
        assert separation_bytes(config, SAMPLE_RATE, "gpu") == pytest.approx(measured["tensor_bytes"], rel=0.2)


def check_measured(config):
    """Within 20%: the tensors at the peak of a step, and the whole process."""
    measured = measure(config)
    assert training_bytes(config, SAMPLE_RATE, "gpu") == pytest.approx(measured["tensor_bytes"], rel=0.2)
    assert training_bytes(config, SAMPLE_RATE, "cpu") == pytest.approx(measured["process_bytes"], rel=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("family", QUICK_FAMILIES)
def test_memory_of_training_is_what_a_step_takes(family):
    check_measured(make_config(family, {"depth": 5}, 3, 2.0, {}))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("config", configs(), ids=describe)
def test_memory_of_training_is_what_a_step_takes_whatever_the_options(config):
    check_measured(config)
