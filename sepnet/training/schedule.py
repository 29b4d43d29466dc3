"""The learning rate over a run."""

import math

import keras
from keras import ops

# By name: the share of the first learning rate that is left after a share of the run, from 0 to 1.
SCHEDULES = {
    "constant": lambda share: 1.0 + 0.0 * share,
    "cosine": lambda share: 0.5 + 0.5 * ops.cos(math.pi * share),
    "step": lambda share: ops.where(share < 0.5, 1.0, 0.1),
}


def rate_left(name: str, share, step, warmup_steps: float):
    """The part of the learning rate that is used.

    Args:
        name: one of `SCHEDULES`.
        share: of the run that is over, 0 to 1.
        step: batches before this one.
        warmup_steps: batches over which it rises from zero in even steps.
    """
    return SCHEDULES[name](share) * ops.minimum((ops.cast(step, "float32") + 1.0) / max(warmup_steps, 1), 1.0)


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate as a function of the batches that were trained on.

    Keras counts them also where its optimizer adds the gradients of several up for one update.

    Args:
        learning_rate: at the start.
        name: one of `SCHEDULES`.
        num_steps: batches of the whole run.
        warmup_steps: see `rate_left`.
    """

    def __init__(self, learning_rate: float, name: str, num_steps: float, warmup_steps: float = 0):
        self.learning_rate = learning_rate
        self.name = name
        self.num_steps = num_steps
        self.warmup_steps = warmup_steps

    def __call__(self, step):
        share = ops.minimum(ops.cast(step, "float32") / self.num_steps, 1.0)
        return self.learning_rate * rate_left(self.name, share, step, self.warmup_steps)

    def get_config(self):
        names = ("learning_rate", "name", "num_steps", "warmup_steps")
        return {name: getattr(self, name) for name in names}
