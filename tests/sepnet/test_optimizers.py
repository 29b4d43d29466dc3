"""Orthogonal steps of kernels against NumPy's SVD and Keras' own optimizers; averages of weights against their sum."""

import json
import math

import keras
import numpy as np
import pytest
from keras import ops

from sepnet.training.optimizers import COLUMNS, POLYNOMIALS, RMS, Muon, is_kernel, orthogonal, with_averages
from tests.sepnet.helpers import small_network


def _polynomials(values):
    for a, b, c in POLYNOMIALS:
        values = a * values + b * values**3 + c * values**5
    return values


def _random(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def _moved(optimizer, gradients, start):
    """Moves a weight by an optimizer, one step for each gradient."""
    weight = keras.Variable(start, name="kernel")
    for gradient in gradients:
        optimizer.apply([ops.convert_to_tensor(gradient)], [weight])
    return ops.convert_to_numpy(weight)


def test_polynomials_bring_singular_values_near_to_one():
    values = _polynomials(np.geomspace(0.01, 1, 10_000))
    assert 0.73 < values.min() < 0.74
    assert 1.26 < values.max() < 1.27


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (3, 3, 4, 8), (1, 1, 16, 32), (15, 24, 48), (3, 3, 2, COLUMNS)])
def test_kernels_are_made_orthogonal_as_the_svd_says(shape):
    kernel = _random(shape)
    matrix = kernel.reshape(-1, shape[-1])
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    expected = left * _polynomials(values / np.linalg.norm(values)) @ right * RMS * math.sqrt(max(matrix.shape))
    made = ops.convert_to_numpy(orthogonal(ops.convert_to_tensor(kernel)))
    np.testing.assert_allclose(made.reshape(matrix.shape), expected, atol=3e-5)


@pytest.mark.parametrize("columns", [COLUMNS + 1, 3 * COLUMNS - 1, 2 * COLUMNS])
@pytest.mark.parametrize("is_wide", [False, True])
def test_wide_kernels_are_made_orthogonal_part_by_part(columns, is_wide):
    matrix = _random((500, columns))
    made = ops.convert_to_numpy(orthogonal(ops.convert_to_tensor(matrix.T if is_wide else matrix)))
    made = made.T if is_wide else made
    width = math.ceil(columns / math.ceil(columns / COLUMNS))
    for first in range(0, columns, width):
        part = slice(first, first + width)
        alone = ops.convert_to_numpy(orthogonal(ops.convert_to_tensor(matrix[:, part])))
        np.testing.assert_allclose(made[:, part], alone, atol=3e-5)


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e6])
def test_a_step_is_as_long_however_long_the_gradient(size):
    kernel = _random((3, 3, 64, 32))
    made = ops.convert_to_numpy(orthogonal(ops.convert_to_tensor(size * kernel)))
    assert np.sqrt(np.mean(made**2)) == pytest.approx(RMS, rel=0.15)
    np.testing.assert_allclose(made, ops.convert_to_numpy(orthogonal(ops.convert_to_tensor(kernel))), atol=1e-4)


def test_without_a_gradient_a_kernel_stays():
    start = _random((4, 3))
    assert np.array_equal(_moved(Muon(0.1), [np.zeros((4, 3), "float32")] * 2, start), start)


def test_matrices_move_as_with_the_muon_of_keras():
    gradients = [_random((24, 16), seed) for seed in range(3)]
    start = _random((24, 16), 9)
    ours = _moved(Muon(0.1), gradients, start) - start
    theirs = _moved(keras.optimizers.Muon(0.1, weight_decay=None), gradients, start) - start
    assert np.sum(ours * theirs) > 0.97 * np.linalg.norm(ours) * np.linalg.norm(theirs)
    assert np.linalg.norm(ours) == pytest.approx(np.linalg.norm(theirs), rel=0.2)


@pytest.mark.parametrize("shape", [(7,), (), (7, 1), (1, 1, 7)])
def test_all_else_moves_as_with_adamw(shape):
    assert not is_kernel(keras.Variable(np.zeros(shape), name="kernel"))
    gradients = [_random(shape, seed) for seed in range(5)]
    ours, theirs = (
        _moved(optimizer(0.1, weight_decay=0.01), gradients, _random(shape, 9))
        for optimizer in (Muon, keras.optimizers.AdamW)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_kernels_keep_one_value_for_each_weight():
    weights = [keras.Variable(np.zeros((4, 3), "float32"), name="kernel"), keras.Variable(np.zeros(3, "float32"))]
    optimizer = Muon(0.1)
    optimizer.build(weights)
    kept = [tuple(variable.shape) for variable in optimizer.variables if len(variable.shape)]
    assert sorted(kept) == [(3,), (3,), (4, 3)]


@pytest.mark.parametrize(
    ("family", "options", "others"),
    [
        ("unet_1d", {}, set()),
        ("unet_2d", {"body": "tfc_tdf"}, set()),
        ("unet_2d", {"upsampling": "learned"}, {"interpolation"}),
        ("unet_hybrid", {}, {"embedding"}),
    ],
)
def test_what_has_axes_without_being_a_kernel_moves_as_with_adamw(family, options, others):
    weights = [weight for weight in small_network(family, **options).core.trainable_weights if len(weight.shape) > 1]
    assert {weight.name for weight in weights if not is_kernel(weight)} == others
    assert any(map(is_kernel, weights))


@pytest.mark.parametrize("optimizer", [keras.optimizers.AdamW, Muon])
def test_averages_follow_from_the_first_step_on(optimizer):
    weight = keras.Variable(np.full(3, 100.0, "float32"))
    made = with_averages(optimizer)(10.0, use_ema=True, ema_momentum=0.5)
    expected, momenta = None, [0.0, 2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15, 7 / 16, 8 / 17, 0.5, 0.5, 0.5]
    for step, momentum in enumerate(momenta):
        made.apply([ops.convert_to_tensor(_random(3, step))], [weight])
        now = ops.convert_to_numpy(weight).astype(np.float64)
        expected = now if expected is None else momentum * expected + (1 - momentum) * now
    made.finalize_variable_values([weight])
    np.testing.assert_allclose(ops.convert_to_numpy(weight), expected, rtol=1e-5)


def test_averages_are_as_long_where_gradients_of_batches_are_added_up():
    shares = []
    for batches in (1, 4):
        weight = keras.Variable(np.zeros(3, "float32"))
        made = with_averages(keras.optimizers.SGD)(
            1.0, use_ema=True, ema_momentum=0.999, gradient_accumulation_steps=batches if batches > 1 else None
        )
        # With gradients of -1 a weight is the number of its updates, so the average tells how old it is.
        for _ in range(200):
            made.apply([-ops.ones(3)], [weight])
        updates = float(weight[0])
        made.finalize_variable_values([weight])
        shares.append(1 - float(weight[0]) / updates)
    assert shares == pytest.approx([0.1, 0.1], abs=0.01)


def test_an_optimizer_in_use_is_written_as_one_that_is_new():
    new, used = (with_averages(Muon)(0.1, use_ema=True, ema_momentum=0.5, name="muon") for _ in range(2))
    used.apply([ops.ones((3, 4))], [keras.Variable(np.zeros((3, 4), "float32"), name="kernel")])
    assert used.get_config() == new.get_config() and json.dumps(used.get_config())
