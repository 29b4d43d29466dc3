"""The U-Net itself, of either rank: one loop down, one loop up (Ronneberger, Fischer, Brox 2015)."""

import itertools
from collections.abc import Sequence

from sepnet.models.blocks import LOW_PASS, BlockStyle, bottleneck, down_block, up_block


def level_filters(depth: int, base_filters: int, filter_growth: str) -> list[int]:
    """Filters of each level and, last, of the bottleneck.

    "add" gives base, 2·base, 3·base, ... (Wave-U-Net); "double" gives base, 2·base, 4·base, ... (Jansson et al.).
    """
    if filter_growth == "add":
        return [base_filters * (level + 1) for level in range(depth + 1)]
    return [base_filters * 2**level for level in range(depth + 1)]


def unet(features, filters: Sequence[int], style: BlockStyle):
    """Runs features down `len(filters) - 1` levels and up again.

    Args:
        features: `[batch, axes..., channels]`; every axis is a multiple of `2**depth`.
        filters: of each level and, last, of the bottleneck.
        style: how the blocks are made.

    Returns:
        Features at the input's resolution.
    """
    *levels, deepest = filters
    skips = []
    for level, count in enumerate(levels):
        skip, features = down_block(features, count, style, f"encoder_{level}")
        skips.append(skip)
    features = bottleneck(features, deepest, style)
    for level, count in reversed(list(enumerate(levels))):
        features = up_block(features, skips[level], count, style, f"decoder_{level}")
    return features


def context(depth: int, style: BlockStyle) -> int:
    """How many input values on either side an output value can depend on, at the most, in steps of the input."""
    down = style.convolutions * (style.down_kernel_size // 2)
    # What halves and what doubles looks further, by at most half a kernel of the coarser grid.
    halving = {"filtered": len(LOW_PASS) // 2}.get(style.downsampling, 1)
    doubling = 2 * (style.up_kernel_size // 2 + 1) if style.upsampling == "transposed" else 2
    up = style.convolutions * (style.up_kernel_size // 2)
    return sum(2**level * (down + halving + doubling + up) for level in range(depth)) + 2**depth * down


def valid_lengths(depth: int, style: BlockStyle) -> tuple[int, int]:
    """The shortest input and output, in samples, of a U-Net with context; longer ones have so many `2**depth` more.

    These are the sizes of Wave-U-Net: `n` values become `(n + 1) / 2` on the way down and `2 * n - 1` on the way up.
    Where a low-pass comes before the way down, it takes its taps besides.
    """
    down = style.convolutions * (style.down_kernel_size - 1)
    up = style.convolutions * (style.up_kernel_size - 1)
    low_pass = len(LOW_PASS) - 1 if style.downsampling == "filtered" else 0

    def output(deepest: int) -> int:
        for _ in range(depth):
            deepest = 2 * deepest - 1 - up
        return deepest

    deepest = next(length for length in itertools.count(1) if output(length) >= 1)
    first_input = deepest + down
    for _ in range(depth):
        first_input = 2 * first_input - 1 + low_pass + down
    return first_input, output(deepest)
