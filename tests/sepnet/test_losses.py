"""Losses against NumPy and SciPy."""

import numpy as np
import pytest
import scipy.signal

from sepnet.config.training import LOSSES
from sepnet.training.losses import make_loss
from tests.sepnet.helpers import noise

SHAPE = (2, 5000, 3, 2)
TRUE, ESTIMATE = noise(*SHAPE), noise(*SHAPE, seed=1)


def magnitudes(audio, frame_length):
    """SciPy's STFT, `[batch, sources, channels, bins, frames]`, with all frames that touch the signal."""
    step = frame_length // 4
    window = scipy.signal.get_window("hann", frame_length)
    padded = np.pad(audio, [(0, 0), (3 * step, -len(audio[0]) % step + 3 * step), (0, 0), (0, 0)]).astype(np.float64)
    _, _, spectrum = scipy.signal.stft(
        np.moveaxis(padded, 1, -1), window=window, nperseg=frame_length, noverlap=frame_length - step, boundary=None
    )
    return np.abs(spectrum) * window.sum()


def multi_resolution():
    total = 0
    for frame_length in (512, 1024, 2048):
        true, estimate = magnitudes(TRUE, frame_length), magnitudes(ESTIMATE, frame_length)
        axes = (0, 2, 3, 4)
        convergence = np.sqrt(((estimate - true) ** 2).sum(axes)) / np.sqrt((true**2).sum(axes))
        logs = np.abs(np.log(estimate + 1e-5) - np.log(true + 1e-5)).mean(axes)
        total = total + convergence + logs
    return (total / 3).mean()


EXPECTED = {
    "mse": lambda: np.mean((ESTIMATE - TRUE) ** 2),
    "l1": lambda: np.mean(np.abs(ESTIMATE - TRUE)),
    "magnitude_mse": lambda: np.mean((magnitudes(ESTIMATE, 1024) - magnitudes(TRUE, 1024)) ** 2),
    "magnitude_l1": lambda: np.mean(np.abs(magnitudes(ESTIMATE, 1024) - magnitudes(TRUE, 1024))),
    "multi_resolution_stft": multi_resolution,
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_agree_with_numpy_and_scipy(name):
    np.testing.assert_allclose(make_loss(name)(TRUE, ESTIMATE), EXPECTED[name](), rtol=1e-4)


def test_source_weights_have_a_mean_of_one():
    by_source = np.mean((ESTIMATE - TRUE) ** 2, axis=(0, 1, 3))
    loss = make_loss("mse", (1.0, 2.0, 6.0))(TRUE, ESTIMATE)
    np.testing.assert_allclose(loss, (by_source * np.array([1, 2, 6]) / 3).mean(), rtol=1e-5)
    np.testing.assert_allclose(make_loss("mse", (2.0, 2.0, 2.0))(TRUE, ESTIMATE), by_source.mean(), rtol=1e-5)
