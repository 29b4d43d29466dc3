"""The figures against NumPy in float64, written from their definitions."""

import numpy as np
import pytest

from sepnet.measures.metrics import is_heard, sdr_db, si_sdr_db, squared_errors
from tests.sepnet.helpers import noise

SOURCES = noise(3, 500, 2, 2, seed=1)
ESTIMATES = SOURCES * 0.7 + 0.3 * noise(3, 500, 2, 2, seed=2)


def expected_si_sdr_db(source, estimate):
    """Le Roux et al. 2019, equations 3 and 4, of one stem with its channels one after the other."""
    source, estimate = source.astype(np.float64).ravel(), estimate.astype(np.float64).ravel()
    target = source * (estimate @ source) / (source @ source)
    return 10 * np.log10((target @ target) / ((estimate - target) @ (estimate - target)))


def each_stem(function):
    return [[function(SOURCES[row, :, stem], ESTIMATES[row, :, stem]) for stem in range(2)] for row in range(3)]


def test_figures_of_long_songs_are_those_of_double_precision():
    generator = np.random.default_rng(0)
    sources = generator.normal(0, 0.1, (1, 12_000_001, 1, 1)).astype(np.float32)
    estimates = sources + generator.normal(0, 0.02, sources.shape).astype(np.float32)
    error = np.square((estimates - sources).astype(np.float64)).mean()
    power = np.square(sources.astype(np.float64)).mean()
    np.testing.assert_allclose(squared_errors(sources, estimates), [[error]], rtol=1e-5)
    np.testing.assert_allclose(sdr_db(sources, estimates), [[10 * np.log10(power / error)]], atol=1e-4)


def test_squared_errors_are_means_over_samples_and_channels():
    expected = each_stem(lambda source, estimate: np.mean((estimate.astype(np.float64) - source) ** 2))
    np.testing.assert_allclose(squared_errors(SOURCES, ESTIMATES), expected, rtol=1e-5)


@pytest.mark.parametrize("gain", [1.0, 0.1, -3.0])
def test_si_sdr_is_that_of_its_definition_at_any_gain(gain):
    expected = each_stem(expected_si_sdr_db)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(si_sdr_db(SOURCES, gain * ESTIMATES), expected, atol=1e-3)


def test_si_sdr_of_the_source_itself_is_high_and_finite():
    assert np.all(np.array(si_sdr_db(SOURCES, SOURCES)) > 60)
    assert np.isfinite(si_sdr_db(SOURCES, SOURCES)).all()


def test_si_sdr_of_silence_is_finite():
    silence = np.zeros_like(SOURCES)
    assert np.isfinite(si_sdr_db(silence, ESTIMATES)).all()
    assert np.isfinite(si_sdr_db(silence, silence)).all()
    # Silence is no answer: far below that of the mixture's share above.
    assert np.all(np.array(si_sdr_db(SOURCES, silence)) <= 0)


def test_what_is_heard_is_above_80_dB_below_full_scale():
    levels = np.array([0.0, 0.9e-4, 1.1e-4, 1.0], np.float32)
    signs = np.where(np.arange(100) % 2, 1, -1).astype(np.float32)
    sources = signs[None, :, None, None] * levels[None, None, :, None]
    np.testing.assert_array_equal(is_heard(sources), [[False, False, True, True]])
