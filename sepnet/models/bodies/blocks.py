"""U-Nets whose levels are blocks of convolutions: one loop down, one loop up (Ronneberger, Fischer, Brox 2015).

Features are `[batch, num_samples, channels]` for rank 1 and `[batch, num_frames, num_bins, channels]` for rank 2.
Every block moves with its input: shifted by one step of its grid, it gives the same values, shifted. That is what
makes separation block by block equal to separation of the whole song.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import ClassVar

from pipelines.errors import UserError
from sepnet.models.bodies.body import Body, last_initializer
from sepnet.options.fields import option, other_default

DOWNSAMPLINGS = ("decimate", "filtered", "strided", "pooled", "max_pooled")
UPSAMPLINGS = ("linear", "learned", "transposed")


@dataclasses.dataclass(frozen=True)
class Blocks(Body):
    """Blocks of convolutions, and ways to halve and to double the axes between them.

    Attributes:
        downsampling: "decimate" (every second value), "filtered" (low-pass, then every second value; Zhang 2019,
            "Making convolutional networks shift-invariant again"), "strided" (by the convolution), "pooled" (averages
            of two) or "max_pooled" (the larger of two).
        upsampling: "linear" (interpolation), "learned" (interpolation with weights of its own for each feature) or
            "transposed" (by a convolution).
    """

    convolutions: int = option(1, "convolutions in each block", at_least=1)
    downsampling: str = option("pooled", "how a level halves its axes", choices=DOWNSAMPLINGS)
    upsampling: str = option("linear", "how a level doubles its axes", choices=UPSAMPLINGS)
    upsampling_kernel_size: int | None = option(
        None, "kernel of transposed upsampling (default: that of the way up)", at_least=1
    )

    def apply(
        self, features, filters: Sequence[int], num_outputs: int, *, recompute: bool, starts_at_zero: bool = False
    ):
        """See `Body.apply`."""
        from sepnet.models.layers.convolution import CONVOLUTIONS

        inputs, skips = features, []
        *levels, deepest = filters
        for level, count in enumerate(levels):
            skip, features = self._down(features, count, f"encoder_{level}", recompute)
            skips.append(skip)
        features = self._convolutions(features, deepest, "bottleneck", recompute)
        for level, count in reversed(list(enumerate(levels))):
            features = self._up(features, skips[level], count, f"decoder_{level}", recompute)
        features = self._join_inputs(features, inputs)
        # Waveforms and masks stay float32 under any precision policy.
        return CONVOLUTIONS[_rank(features)](
            num_outputs, 1, kernel_initializer=last_initializer(starts_at_zero), dtype="float32", name="stems"
        )(features)

    def _is_valid(self) -> bool:
        """True where convolutions go without padding."""
        return False

    def _join_inputs(self, features, inputs):
        """Gives the features that the last convolution sees."""
        return features

    def _down(self, features, filters: int, name: str, recompute: bool):
        """One level down: the features that the way up will see again, and those at half the resolution."""
        import keras

        from sepnet.models.layers.resampling import Decimate, LowPass

        poolings = {
            "pooled": {1: keras.layers.AveragePooling1D, 2: keras.layers.AveragePooling2D},
            "max_pooled": {1: keras.layers.MaxPooling1D, 2: keras.layers.MaxPooling2D},
        }
        if self.downsampling == "strided":
            skip = self._convolutions(features, filters, name, recompute, count=self.convolutions - 1)
            return skip, self._convolve(skip, filters, f"{name}_strided", recompute, strides=2)
        skip = self._convolutions(features, filters, name, recompute)
        if self.downsampling in poolings:
            return skip, poolings[self.downsampling][_rank(skip)](2, name=f"{name}_pool")(skip)
        lowered = skip
        if self.downsampling == "filtered":
            lowered = LowPass(self._is_valid(), name=f"{name}_low_pass")(skip)
        return skip, Decimate(name=f"{name}_decimate")(lowered)

    def _up(self, features, skip, filters: int, name: str, recompute: bool):
        """One level up: doubles the resolution and joins the features that the way down had there."""
        import keras

        from sepnet.models.layers.convolution import TRANSPOSED_CONVOLUTIONS
        from sepnet.models.layers.lengths import CropCenter
        from sepnet.models.layers.resampling import Upsample

        if self.upsampling == "transposed":
            kernel_size = self.upsampling_kernel_size or self.up_kernel_size
            features = TRANSPOSED_CONVOLUTIONS[_rank(features)](
                filters, kernel_size, strides=2, padding="same", name=f"{name}_upsample"
            )(features)
        else:
            is_valid = self._is_valid()
            features = Upsample(self.upsampling == "learned", is_valid, name=f"{name}_upsample")(features)
            skip = CropCenter(name=f"{name}_crop")(skip, features) if is_valid else skip
        features = keras.layers.Concatenate(name=f"{name}_join")([features, skip])
        features = self._convolutions(features, filters, name, recompute, is_up=True)
        return keras.layers.Dropout(self.dropout, name=f"{name}_dropout")(features) if self.dropout else features

    def _convolutions(
        self, features, filters: int, name: str, recompute: bool, *, count: int | None = None, is_up: bool = False
    ):
        count = self.convolutions if count is None else count
        for index in range(count):
            numbered = f"{name}_{index}" if count > 1 else name
            features = self._convolve(features, filters, numbered, recompute, is_up=is_up)
        return features

    def _convolve(self, features, filters: int, name: str, recompute: bool, *, strides: int = 1, is_up: bool = False):
        from sepnet.models.layers.convolution import Convolution

        return Convolution(
            rank=_rank(features),
            filters=filters,
            kernel_size=self.up_kernel_size if is_up else self.down_kernel_size,
            strides=strides,
            padding="valid" if self._is_valid() else "same",
            normalization=self.normalization,
            activation=self._activation(is_up),
            recompute=recompute,
            name=name,
        )(features)


@dataclasses.dataclass(frozen=True)
class Blocks1D(Blocks):
    """Blocks on waveforms; the last convolution sees the waveform itself as well."""

    down_kernel_size: int = other_default(Body, "down_kernel_size", 15)
    up_kernel_size: int = other_default(Body, "up_kernel_size", 5)
    normalization: str = other_default(Body, "normalization", "none")
    downsampling: str = other_default(Blocks, "downsampling", "decimate")
    padding: str = option(
        "zero", "pad with zeros, or not at all: a segment is read with what lies around it", choices=("zero", "valid")
    )

    def apply(
        self, features, filters: Sequence[int], num_outputs: int, *, recompute: bool, starts_at_zero: bool = False
    ):
        """See `Body.apply`.

        Raises:
            UserError: without padding, with blocks that keep no grid then, or with even kernels.
        """
        if self._is_valid():
            self._check_valid()
        return super().apply(features, filters, num_outputs, recompute=recompute, starts_at_zero=starts_at_zero)

    def valid_samples(self, depth: int) -> tuple[int, int] | None:
        """See `Body.valid_samples`.

        These are the sizes of Wave-U-Net: `n` values become `(n + 1) / 2` on the way down and `2 * n - 1` on the way
        up. Where a low-pass comes before the way down, it takes its taps besides.
        """
        if not self._is_valid():
            return None
        from sepnet.models.layers.resampling import LOW_PASS

        down = self.convolutions * (self.down_kernel_size - 1)
        up = self.convolutions * (self.up_kernel_size - 1)
        low_pass = len(LOW_PASS) - 1 if self.downsampling == "filtered" else 0

        def output(deepest: int) -> int:
            for _ in range(depth):
                deepest = 2 * deepest - 1 - up
            return deepest

        deepest = next(length for length in itertools.count(1) if output(length) >= 1)
        first_input = deepest + down
        for _ in range(depth):
            first_input = 2 * first_input - 1 + low_pass + down
        return first_input, output(deepest)

    def _is_valid(self) -> bool:
        return self.padding == "valid"

    def _join_inputs(self, features, inputs):
        import keras

        from sepnet.models.layers.lengths import CropCenter

        inputs = CropCenter(name="crop_mixture")(inputs, features) if self._is_valid() else inputs
        return keras.layers.Concatenate(name="join_mixture")([features, inputs])

    def _check_valid(self) -> None:
        if self.downsampling not in ("decimate", "filtered") or self.upsampling == "transposed":
            raise UserError(
                f"--padding valid does not go with --downsampling {self.downsampling} --upsampling {self.upsampling}; "
                "take decimate or filtered, and linear or learned"
            )
        if not (self.down_kernel_size % 2 and self.up_kernel_size % 2):
            raise UserError(
                f"--padding valid does not go with kernels of {self.down_kernel_size} and {self.up_kernel_size}: "
                "without padding even ones move the features by half a sample; take odd ones"
            )


@dataclasses.dataclass(frozen=True)
class Blocks2D(Blocks):
    """Blocks on spectrograms."""

    usual_subbands: ClassVar[int] = 4

    downsampling: str = other_default(Blocks, "downsampling", "strided")
    upsampling: str = other_default(Blocks, "upsampling", "transposed")


def _rank(features) -> int:
    """Number of axes between batch and channels."""
    return len(features.shape) - 2
