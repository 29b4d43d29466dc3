"""`Strided`: bodies whose levels are one strided convolution down and one transposed convolution up."""

import dataclasses
from collections.abc import Sequence

from sepnet.models.bodies.body import Body

# Dropout acts on the deepest levels alone.
DROPOUT_LEVELS = 3


@dataclasses.dataclass(frozen=True)
class Strided(Body):
    """Base of Jansson's and Spleeter's bodies: nothing lies below the deepest level, and `filters[-1]` is not used.

    The last transposed convolution works at a resolution that no skip reaches.
    """

    def _way_up(self, features, skips, filters: Sequence[int], recompute: bool, activation_first: bool):
        """All levels of the way up but the last."""
        import keras

        depth = len(filters)
        for level in range(depth - 1, 0, -1):
            features = self._transposed(features, filters[level - 1], level, recompute, activation_first)
            if self.dropout and level >= depth - DROPOUT_LEVELS:
                features = keras.layers.Dropout(self.dropout, name=f"decoder_{level}_dropout")(features)
            features = keras.layers.Concatenate(name=f"decoder_{level}_join")([features, skips[level - 1]])
        return features

    def _strided(self, features, filters: int, level: int):
        import keras

        return keras.layers.Conv2D(filters, self.down_kernel_size, strides=2, padding="same", name=f"encoder_{level}")(
            features
        )

    def _transposed(self, features, filters: int, level: int, recompute: bool, activation_first: bool):
        import keras

        features = keras.layers.Conv2DTranspose(
            filters, self.up_kernel_size, strides=2, padding="same", name=f"decoder_{level}"
        )(features)
        name = f"decoder_{level}_norm"
        return self._normalized(features, name, recompute, self._activation(True), activation_first)
