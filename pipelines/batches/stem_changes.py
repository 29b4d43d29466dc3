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


@augmentation(default=3.0, help="stems are played faster or slower by up to this", at_least=0.0, at_most=12.0)
def speed(stems, semitones, seeds):
    """Plays each stem faster and higher or slower and lower, evenly in semitones; one that ends begins again.

    Values between samples are interpolated linearly.
    """
    from keras import ops, random

    batch_size, num_samples, num_stems, num_channels = ops.shape(stems)
    speeds = ops.power(2.0, random.uniform(_one_for_each(stems), -semitones, semitones, seed=seeds) / 12.0)
    samples = ops.reshape(ops.arange(num_samples), (1, -1, 1, 1))
    # By how much each sample moves, which float32 holds more exactly than where it goes.
    moves = ops.cast(samples, "float32") * (speeds - 1)
    whole = ops.floor(moves)
    places = samples + ops.cast(whole, "int32")
    # Taking rows of one table takes a fraction of what taking along an axis does.
    table = ops.reshape(stems, (-1, num_channels))
    firsts = ops.reshape(ops.arange(batch_size), (-1, 1, 1, 1)) * (num_samples * num_stems)
    firsts = firsts + ops.reshape(ops.arange(num_stems), (1, 1, -1, 1))

    def taken(places):
        # No stem begins again more than once, since none is more than twice as fast.
        places = ops.where(places < num_samples, places, places - num_samples)
        return ops.take(table, (firsts + places * num_stems)[..., 0], axis=0)

    before, after = taken(places), taken(places + 1)
    return before + (moves - whole) * (after - before)


def _one_for_each(stems):
    """The shape of one number for each stem."""
    from keras import ops

    return ops.shape(stems)[0], 1, stems.shape[2], 1


def _random_signs(stems, seeds):
    from keras import ops, random

    return ops.where(random.uniform(_one_for_each(stems), seed=seeds) < 0.5, -1.0, 1.0)
