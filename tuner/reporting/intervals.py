"""Intervals of means over seeds and segments, and of paired differences."""

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np

LEVEL = 0.95
NUM_RESAMPLES = 10_000


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean squared error, or a difference of two, with its 95% interval.

    Attributes:
        value: mean over seeds and segments.
        low, high: ends of the interval.
        num_seeds: runs behind it; with 1, the interval knows nothing of differences from run to run.
    """

    value: float
    low: float
    high: float
    num_seeds: int


class Bootstrap:
    """Intervals of means over seeds and segments.

    Segments are resampled. Seeds are not: of three, resampling knows ten different means, and where seeds matter its
    95% intervals held the truth in 77% of simulations. To each resampled mean is added instead what Student's t gives
    for the mean of so few seeds; those intervals held it in 93% or more.

    Args:
        num_segments: validation segments.
        num_resamples: resamples behind an interval.
    """

    def __init__(self, num_segments: int, num_resamples: int = NUM_RESAMPLES):
        counts = np.random.default_rng(0).multinomial(
            num_segments, np.full(num_segments, 1 / num_segments), num_resamples
        )
        self._weights = counts / num_segments

    def estimate(self, errors: np.ndarray) -> Estimate:
        """Mean and interval of errors `[num_seeds, num_segments]`, which are never below zero."""
        found = self._mean(errors)
        return dataclasses.replace(found, low=max(found.low, 0.0))

    def difference(self, errors: Mapping[int, np.ndarray], others: Mapping[int, np.ndarray]) -> Estimate:
        """Errors `[num_segments]` by seed less others, paired by segments, and by seeds where both have the same."""
        shared = sorted(errors.keys() & others.keys())
        if shared:
            return self._mean(np.stack([errors[seed] - others[seed] for seed in shared]))
        means = (np.stack(list(each.values())).mean(axis=0) for each in (errors, others))
        return self._mean(np.subtract(*means)[None])

    def _mean(self, values: np.ndarray) -> Estimate:
        num_seeds = len(values)
        means = self._weights @ values.mean(axis=0)
        if num_seeds > 1:
            draws = values.mean(axis=1).std(ddof=1) / num_seeds**0.5 * _student(num_seeds - 1, len(means))
            # With either sign, so that the interval of a difference is that of the opposite one mirrored.
            means = np.concatenate([means + draws, means - draws])
        low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Estimate(float(values.mean()), float(low), float(high), num_seeds)


@functools.lru_cache
def _student(freedom: int, num_draws: int) -> np.ndarray:
    return np.random.default_rng(freedom).standard_t(freedom, num_draws)
