"""The TFC-TDF U-Net: blocks of convolutions, each followed by matrices along frequency."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from sepnet.models.bodies.body import Body, last_initializer
from sepnet.options.fields import option

SKIPS = ("multiply", "concatenate")
BLOCKS = ("plain", "dense", "residual")


@dataclasses.dataclass(frozen=True)
class TfcTdf(Body):
    """Time-frequency convolutions and time-distributed fully-connected layers.

    References: Choi, Kim, Chung, Lee, Jung 2020, "Investigating U-Nets with various intermediate blocks for
    spectrogram-based singing voice separation" ("dense" blocks); Kim, Choi, Chung, Lee, Jung 2021, "KUIELab-MDX-Net"
    ("plain" blocks, products as skips); its third version of 2023, MDX23C ("residual" blocks, which normalise first,
    and a last stage that sees the input again). Deliberate differences: convolutions that a normalisation follows have
    no bias; levels beyond `time_levels` halve frequency alone, so that depth and reach in time are two things.

    Attributes:
        block: "plain" (convolutions, then matrices whose outputs are added), "dense" (each convolution sees what those
            before it gave) or "residual" (matrices between two convolutions, with a way around all three).
    """

    usual_subbands: ClassVar[int] = 4

    convolutions: int = option(2, "convolutions in each block; pairs of them in residual blocks", at_least=1)
    block: str = option("plain", "structure of the blocks", choices=BLOCKS)
    skips: str = option("multiply", "how the way up joins features of the way down", choices=SKIPS)
    bottleneck_factor: int = option(8, "matrices along frequency go over so many times fewer bins", at_least=1)
    smallest_bottleneck: int = option(16, "and over no fewer bins than these", at_least=1)
    time_levels: int = option(2, "levels, from the first, that halve time as well as frequency", at_least=0)

    def apply(
        self, features, filters: Sequence[int], num_outputs: int, *, recompute: bool, starts_at_zero: bool = False
    ):
        """See `Body.apply`."""
        import keras

        inputs, skips = features, []
        *levels, deepest = filters
        is_residual = self.block == "residual"
        if is_residual:
            features = keras.layers.Conv2D(filters[0], 1, use_bias=False, name="first")(features)
        else:
            features = self._convolve(features, filters[0], "first", recompute, kernel_size=1)
        first = features
        for level, count in enumerate(levels):
            features = self._block(features, count, f"encoder_{level}", recompute)
            skips.append(features)
            strides = self._strides(level)
            features = self._convolve(
                features, filters[level + 1], f"encoder_{level}_down", recompute, kernel_size=strides, strides=strides
            )
        features = self._block(features, deepest, "bottleneck", recompute)
        for level, count in reversed(list(enumerate(levels))):
            features = self._up(features, skips[level], count, level, recompute)
        if is_residual:
            features = keras.layers.Multiply(name="last_product")([features, first])
            features = keras.layers.Concatenate(name="last_join")([inputs, features])
            features = keras.layers.Conv2D(filters[0], 1, use_bias=False, name="last")(features)
            features = keras.layers.Activation(self.activation, name="last_activation")(features)
        return keras.layers.Conv2D(
            num_outputs,
            1,
            use_bias=not is_residual,
            kernel_initializer=last_initializer(starts_at_zero),
            dtype="float32",
            name="stems",
        )(features)

    def grid(self, depth: int) -> int:
        """See `Body.grid`."""
        return 2 ** min(self.time_levels, depth)

    def frequency_grid(self, depth: int) -> int:
        """See `Body.frequency_grid`."""
        return 2**depth

    def _strides(self, level: int) -> tuple[int, int]:
        return (2 if level < self.time_levels else 1, 2)

    def _up(self, features, skip, filters: int, level: int, recompute: bool):
        """One level up: doubles the resolution, joins what the way down had there, and works on both."""
        import keras

        name, strides = f"decoder_{level}", self._strides(level)
        transposed = keras.layers.Conv2DTranspose(
            filters, strides, strides=strides, use_bias=self.normalization == "none", name=f"{name}_upsample"
        )
        activation = self._activation(True)
        if self.block == "residual":
            features = transposed(self._normalized(features, f"{name}_norm", recompute, activation))
        else:
            features = self._normalized(transposed(features), f"{name}_norm", recompute, activation)
        join = keras.layers.Multiply if self.skips == "multiply" else keras.layers.Concatenate
        features = self._block(join(name=f"{name}_join")([features, skip]), filters, name, recompute, is_up=True)
        return keras.layers.Dropout(self.dropout, name=f"{name}_dropout")(features) if self.dropout else features

    def _block(self, features, filters: int, name: str, recompute: bool, *, is_up: bool = False):
        import keras

        def convolve(features, index):
            return self._convolve(features, filters, f"{name}_{index}", recompute, is_up=is_up)

        def with_matrices(features, name):
            return keras.layers.Add(name=f"{name}_add")([features, self._matrices(features, name, recompute, is_up)])

        if self.block == "residual":
            for index in range(self.convolutions):
                around = keras.layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_{index}_around")(features)
                features = with_matrices(convolve(features, 2 * index), f"{name}_{index}_matrices")
                features = keras.layers.Add(name=f"{name}_{index}_add")([around, convolve(features, 2 * index + 1)])
            return features
        for index in range(self.convolutions):
            made = convolve(features, index)
            if self.block == "dense" and index < self.convolutions - 1:
                features = keras.layers.Concatenate(name=f"{name}_{index}_join")([made, features])
            else:
                features = made
        return with_matrices(features, f"{name}_matrices")

    def _matrices(self, features, name: str, recompute: bool, is_up: bool):
        """Two matrices along frequency, through fewer bins."""
        from sepnet.models.layers.frequency import FrequencyDense

        num_bins = features.shape[2]
        activation = self._activation(is_up)
        inner = max(num_bins // self.bottleneck_factor, self.smallest_bottleneck)
        for index, count in enumerate((inner, num_bins)):
            if self.block == "residual":
                features = self._normalized(features, f"{name}_norm_{index}", recompute, activation)
            features = FrequencyDense(count, name=f"{name}_{index}")(features)
            if self.block != "residual":
                features = self._normalized(features, f"{name}_norm_{index}", recompute, activation)
        return features

    def _convolve(
        self, features, filters: int, name: str, recompute: bool, *, kernel_size=None, strides=1, is_up: bool = False
    ):
        """A convolution, and its normalisation and activation after it, or before it in residual blocks."""
        import keras

        from sepnet.models.layers.convolution import Convolution

        kernel_size = kernel_size or (self.up_kernel_size if is_up else self.down_kernel_size)
        activation = self._activation(is_up)
        if self.block == "residual":
            features = self._normalized(features, f"{name}_norm", recompute, activation)
            return keras.layers.Conv2D(
                filters, kernel_size, strides=strides, padding="same", use_bias=False, name=name
            )(features)
        return Convolution(
            rank=2,
            filters=filters,
            kernel_size=kernel_size,
            strides=strides,
            padding="same",
            normalization=self.normalization,
            activation=activation,
            recompute=recompute,
            name=name,
        )(features)
