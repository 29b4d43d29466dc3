"""The body of Jansson et al. 2017."""

import dataclasses
from collections.abc import Sequence

from sepnet.models.bodies.body import last_initializer
from sepnet.models.bodies.strided import Strided


@dataclasses.dataclass(frozen=True)
class Jansson(Strided):
    """The U-Net of Jansson et al. 2017, "Singing voice separation with deep U-Net convolutional networks"."""

    def apply(
        self, features, filters: Sequence[int], num_outputs: int, *, recompute: bool, starts_at_zero: bool = False
    ):
        """See `Body.apply`."""
        import keras

        filters, skips = filters[:-1], []
        for level, count in enumerate(filters):
            features = self._strided(features, count, level)
            features = self._normalized(features, f"encoder_{level}_norm", recompute, self.activation)
            skips.append(features)
        features = self._way_up(features, skips[:-1], filters, recompute, activation_first=False)
        return keras.layers.Conv2DTranspose(
            num_outputs,
            self.up_kernel_size,
            strides=2,
            padding="same",
            kernel_initializer=last_initializer(starts_at_zero),
            dtype="float32",
            name="stems",
        )(features)
