"""Random changes of stems, and the options that switch them on.

Stems are `[batch, num_samples, num_stems, num_channels]`, float32, full scale ±1. Keras is imported inside, so that
options are listed without it.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """A random change of stems, and the option whose value switches it on.

    Attributes:
        option: the option's `default` and `help`, and `at_least` and `at_most` of a number.
        change: `(stems, value, seeds) -> stems`, for the option's value and a `keras.random.SeedGenerator`.
    """

    option: Mapping[str, Any]
    change: Callable


def augmentation(**option) -> Callable[[Callable], Augmentation]:
    """Makes an `Augmentation` of the function that follows, with this option; False and 0 switch it off."""
    return lambda change: Augmentation(option, change)


@augmentation(default=True, help="mix stems of different songs of the batch, on each device of its own ones")
def remix(stems, value, seeds):
    """Gives every mixture stems of different segments: each stem is shifted through the batch by its own amount."""
    from keras import ops, random

    batch_size, num_stems = ops.shape(stems)[0], stems.shape[2]
    shifts = random.randint((1, num_stems), 0, batch_size, seed=seeds)
    rows = (ops.expand_dims(ops.arange(batch_size), 1) + shifts) % batch_size
    return ops.stack([ops.take(stems[:, :, index], rows[:, index], axis=0) for index in range(num_stems)], 2)


@augmentation(default=6.0, help="stems are made louder or softer by up to this", at_least=0.0, at_most=120.0)
def random_gain(stems, range_db, seeds):
    """Makes each stem louder or softer by up to `range_db` dB, evenly in dB."""
    from keras import ops, random

    return stems * ops.power(10.0, random.uniform(_one_for_each(stems), -range_db, range_db, seed=seeds) / 20.0)


@augmentation(default=True, help="exchange left and right at random")
def channel_swap(stems, value, seeds):
    """Exchanges left and right of a stem every second time."""
    from keras import ops

    return ops.where(_random_signs(stems, seeds) > 0, stems, ops.flip(stems, axis=3))


@augmentation(default=True, help="invert stems at random")
def polarity(stems, value, seeds):
    """Inverts a stem every second time."""
    return stems * _random_signs(stems, seeds)


def _one_for_each(stems):
    """The shape of one number for each stem."""
    from keras import ops

    return ops.shape(stems)[0], 1, stems.shape[2], 1


def _random_signs(stems, seeds):
    from keras import ops, random

    return ops.where(random.uniform(_one_for_each(stems), seed=seeds) < 0.5, -1.0, 1.0)
