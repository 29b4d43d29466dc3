"""Augmentation on the device: new songs out of the stems of a batch.

Layers over `stems`, `[batch, num_samples, num_stems, num_channels]`, float32, full scale ±1; each has an effect
in training only. The mixture is made from the stems afterwards, so it always fits them (Uhlich et al. 2017, "Improving
music source separation based on deep neural networks through data augmentation and network blending").
"""

import keras
from keras import ops


class _Augmentation(keras.layers.Layer):
    """Base of the random changes made to the stems in training."""

    def __init__(self, seed: int, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.seeds = keras.random.SeedGenerator(seed)

    def call(self, stems, training=False):
        return self.augment(stems) if training else stems

    def augment(self, stems):
        raise NotImplementedError

    def _random_signs(self, shape):
        return ops.where(keras.random.uniform(shape, seed=self.seeds) < 0.5, -1.0, 1.0)

    def compute_output_shape(self, input_shape):
        return input_shape


class Remix(_Augmentation):
    """Gives every mixture stems of different segments: each stem is shifted through the batch by its own amount."""

    def augment(self, stems):
        batch_size, num_stems = ops.shape(stems)[0], stems.shape[2]
        shifts = keras.random.randint((1, num_stems), 0, batch_size, seed=self.seeds)
        rows = (ops.expand_dims(ops.arange(batch_size), 1) + shifts) % batch_size
        return ops.stack([ops.take(stems[:, :, index], rows[:, index], axis=0) for index in range(num_stems)], 2)


class RandomGain(_Augmentation):
    """Makes each stem louder or softer by up to `range_db` dB, evenly in dB."""

    def __init__(self, seed: int, range_db: float, **kwargs):
        super().__init__(seed, **kwargs)
        self.range_db = range_db

    def augment(self, stems):
        shape = (ops.shape(stems)[0], 1, stems.shape[2], 1)
        gain_db = keras.random.uniform(shape, -self.range_db, self.range_db, seed=self.seeds)
        return stems * ops.power(10.0, gain_db / 20.0)


class ChannelSwap(_Augmentation):
    """Exchanges left and right of a stem every second time."""

    def augment(self, stems):
        signs = self._random_signs((ops.shape(stems)[0], 1, stems.shape[2], 1))
        return ops.where(signs > 0, stems, ops.flip(stems, axis=3))


class Polarity(_Augmentation):
    """Inverts a stem every second time."""

    def augment(self, stems):
        return stems * self._random_signs((ops.shape(stems)[0], 1, stems.shape[2], 1))


def make_augmentations(
    *, remix: bool, random_gain_db: float, channel_swap: bool, polarity: bool, seed: int
) -> list[keras.layers.Layer]:
    """The augmentations that are switched on, in the order in which they are applied."""
    chosen = []
    if remix:
        chosen.append(Remix(seed, name="remix"))
    if random_gain_db:
        chosen.append(RandomGain(seed + 1, random_gain_db, name="random_gain"))
    if channel_swap:
        chosen.append(ChannelSwap(seed + 2, name="channel_swap"))
    if polarity:
        chosen.append(Polarity(seed + 3, name="polarity"))
    return chosen
