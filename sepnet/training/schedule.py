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


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate as a function of the batches that were trained on.

    Keras counts them also where the gradients of several are added up for one update.

    Args:
        learning_rate: at the start.
        name: one of `SCHEDULES`.
        num_steps: batches of the whole run.
    """

    def __init__(self, learning_rate: float, name: str, num_steps: int):
        self.learning_rate = learning_rate
        self.name = name
        self.num_steps = num_steps

    def __call__(self, step):
        share = ops.minimum(ops.cast(step, "float32") / self.num_steps, 1.0)
        return self.learning_rate * SCHEDULES[self.name](share)

    def get_config(self):
        return {"learning_rate": self.learning_rate, "name": self.name, "num_steps": self.num_steps}
