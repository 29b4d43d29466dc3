"""The body of Spleeter."""

import dataclasses
from collections.abc import Sequence

from sepnet.models.bodies.body import last_initializer
from sepnet.models.bodies.strided import Strided

# The convolution that follows the last level.
LAST_KERNEL_SIZE, LAST_DILATION = 4, 2


@dataclasses.dataclass(frozen=True)
class Spleeter(Strided):
    """The U-Net of Spleeter (Hennequin, Khlif, Voituret, Moussallam 2020, https://doi.org/10.21105/joss.02154).

    It differs from Jansson's as its code does: the way up joins, and begins with, what convolutions give before their
    normalisation; on the way up the activation comes first; the last level has one feature, and a dilated convolution
    makes the outputs of it.
    """

    def apply(
        self, features, filters: Sequence[int], num_outputs: int, *, recompute: bool, starts_at_zero: bool = False
    ):
        """See `Body.apply`."""
        import keras

        filters, skips = filters[:-1], []
        for level, count in enumerate(filters):
            if level:
                features = self._normalized(features, f"encoder_{level - 1}_norm", recompute, self.activation)
            features = self._strided(features, count, level)
            skips.append(features)
        features = self._way_up(features, skips[:-1], filters, recompute, activation_first=True)
        features = self._transposed(features, 1, 0, recompute, activation_first=True)
        return keras.layers.Conv2D(
            num_outputs,
            LAST_KERNEL_SIZE,
            dilation_rate=LAST_DILATION,
            padding="same",
            kernel_initializer=last_initializer(starts_at_zero),
            dtype="float32",
            name="stems",
        )(features)
