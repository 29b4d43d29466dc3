"""Numbers of channels, made equal."""

import numpy as np


def match_channels(samples: np.ndarray, num_channels: int) -> np.ndarray:
    """Repeats one channel of `[num_samples, any]`, or averages all to one; keeps the first of more than asked for."""
    if samples.shape[1] == num_channels:
        return samples
    if num_channels == 1:
        mean = samples.mean(axis=1, keepdims=True)
        return (mean.round() if np.issubdtype(samples.dtype, np.integer) else mean).astype(samples.dtype)
    return np.repeat(samples, num_channels, axis=1) if samples.shape[1] == 1 else samples[:, :num_channels]
