"""The U-Net itself, of either rank: one loop down, one loop up (Ronneberger, Fischer, Brox 2015)."""

from collections.abc import Sequence

from sepnet.models.blocks import BlockStyle, bottleneck, down_block, up_block


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
    steps = 0
    for level in range(depth):
        stride = 2**level
        # A level sees its kernels, and one neighbour for what it halves and one for what it doubles.
        steps += stride * (style.down_kernel_size // 2 + 1) + stride * style.up_kernel_size + 2 * stride
    return steps + 2**depth * (style.down_kernel_size // 2)
