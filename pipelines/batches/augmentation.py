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
