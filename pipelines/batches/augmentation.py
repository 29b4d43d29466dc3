"""Augmentation on the device: new songs out of the stems of a batch.

The mixture is made from the stems afterwards, so it always fits them (Uhlich et al. 2017, "Improving music source
separation based on deep neural networks through data augmentation and network blending").
"""

import pkgutil

import keras

from pipelines.batches import AUGMENTATIONS


class AugmentationLayer(keras.layers.Layer):
    """Changes stems in training, and only then, by an `Augmentation` whose option has a value."""

    def __init__(self, name: str, value: bool | float, seed: int):
        super().__init__(name=name, dtype="float32")
        self.augmentation = pkgutil.resolve_name(AUGMENTATIONS[name])
        self.value = value
        self.seeds = keras.random.SeedGenerator(seed)

    def call(self, stems, training=False):
        return self.augmentation.change(stems, self.value, self.seeds) if training else stems

    def compute_output_shape(self, input_shape):
        return input_shape


def make_augmentations(*, seed: int, **values: bool | float) -> list[AugmentationLayer]:
    """The augmentations that the values of their options switch on, in the order in which they are applied."""
    places = enumerate(AUGMENTATIONS)
    return [AugmentationLayer(name, values[name], seed + place) for place, name in places if values.get(name)]


class RandomSnr(keras.layers.Layer):
    """Gives mixtures a random signal-to-noise ratio, evenly in dB, in training: the first source against all others.

    The others get one gain together, by the power of a whole segment. Where either side is silent nothing is changed.

    Args:
        snr_db: the lowest and the highest ratio.
        seed: of the ratios.
        margin_samples: at either end of the sources, which do not count.
    """

    def __init__(self, snr_db: tuple[float, float], seed: int, margin_samples: int = 0):
        super().__init__(name="snr_db", dtype="float32")
        self.snr_db = snr_db
        self.margin_samples = margin_samples
        self.seeds = keras.random.SeedGenerator(seed)

    def call(self, sources, training=False):
        """Changes `sources`, float32 `[batch, num_samples, num_sources, num_channels]`, full scale ±1."""
        if not training:
            return sources
        ops, num_samples = keras.ops, keras.ops.shape(sources)[1]
        segment = sources[:, self.margin_samples : num_samples - self.margin_samples]
        signal, noise = (
            ops.mean(ops.square(ops.sum(part, axis=2, keepdims=True)), axis=(1, 3), keepdims=True)
            for part in (segment[:, :, :1], segment[:, :, 1:])
        )
        ratios_db = keras.random.uniform(ops.shape(signal), *self.snr_db, seed=self.seeds)
        are_heard = ops.logical_and(signal > 0, noise > 0)
        gains = ops.sqrt(signal / ops.where(are_heard, noise, 1.0)) * ops.power(10.0, -ratios_db / 20.0)
        return ops.concatenate([sources[:, :, :1], sources[:, :, 1:] * ops.where(are_heard, gains, 1.0)], axis=2)

    def compute_output_shape(self, input_shape):
        return input_shape
