"""Measures the time that a model runs."""

import time

import numpy as np

from sepnet.separation.sample_streams import Stems
from sepnet.separation.separator import Model


class TimedModel:
    """A model for a `Separator`, and in `seconds` how long it has run."""

    def __init__(self, model: Model):
        self.name, self.contract = model.name, model.contract
        self.seconds = 0.0
        self._model = model

    def __call__(self, mixture: np.ndarray) -> Stems:
        """See `Model`."""
        begin = time.perf_counter()
        stems = self._model(mixture)
        self.seconds += time.perf_counter() - begin
        return stems
