"""U-Nets whose levels are one strided convolution down and one transposed convolution up, as in the first for music.

Their last transposed convolution gives the outputs themselves, at a resolution that no skip reaches, and there is
nothing below the deepest level. With 2 axes these are the networks of Jansson et al. and of Spleeter.
"""

from collections.abc import Sequence

import keras

from sepnet.models.blocks import CONVOLUTIONS, TRANSPOSED_CONVOLUTIONS, BlockStyle, NormalizedActivation

# Dropout acts on the deepest levels alone.
DROPOUT_LEVELS = 3
# The convolution that follows Spleeter's last level.
LAST_KERNEL_SIZE, LAST_DILATION = 4, 2


def jansson_unet(features, filters: Sequence[int], style: BlockStyle, num_outputs: int):
    """The U-Net of Jansson et al. 2017, "Singing voice separation with deep U-Net convolutional networks".

    Args:
        features: `[batch, axes..., channels]`; every axis is a multiple of `2**len(filters)`.
        filters: of each level.
        style: its kernels, normalisation, activations, dropout and recomputation count.
        num_outputs: channels that it gives, before any mask.

    Returns:
        float32 `[batch, axes..., num_outputs]`.
    """
    skips = []
    for level, count in enumerate(filters):
        features = _normalized(_strided(features, count, style, level), style, f"encoder_{level}_norm")
        skips.append(features)
    *skips, features = skips
    features = _way_up(features, skips, filters, style, activation_first=False)
    return TRANSPOSED_CONVOLUTIONS[style.rank](
        num_outputs, style.up_kernel_size, strides=2, padding="same", dtype="float32", name="stems"
    )(features)


def spleeter_unet(features, filters: Sequence[int], style: BlockStyle, num_outputs: int):
    """The U-Net of Spleeter (Hennequin, Khlif, Voituret, Moussallam 2020, https://doi.org/10.21105/joss.02154).

    It differs from Jansson's as its code does: the way up joins, and begins with, what convolutions give before their
    normalisation; on the way up the activation comes first; the last level has one feature, and a dilated convolution
    makes the outputs of it. Arguments and result are those of `jansson_unet`.
    """
    skips = []
    for level, count in enumerate(filters):
        if level:
            features = _normalized(features, style, f"encoder_{level - 1}_norm")
        features = _strided(features, count, style, level)
        skips.append(features)
    *skips, features = skips
    features = _way_up(features, skips, filters, style, activation_first=True)
    features = _transposed(features, 1, style, 0, activation_first=True)
    return CONVOLUTIONS[style.rank](
        num_outputs, LAST_KERNEL_SIZE, dilation_rate=LAST_DILATION, padding="same", dtype="float32", name="stems"
    )(features)


def strided_context(depth: int, style: BlockStyle, form: str) -> int:
    """How many input values on either side an output value can depend on, at the most, in steps of the input."""
    levels = sum(2**level for level in range(depth))
    last = LAST_DILATION * LAST_KERNEL_SIZE // 2 if form == "spleeter" else 0
    return levels * (style.down_kernel_size // 2 + 1 + 2 * (style.up_kernel_size // 4 + 1)) + last


def _way_up(features, skips, filters: Sequence[int], style: BlockStyle, activation_first: bool):
    """All levels of the way up but the last."""
    depth = len(filters)
    for level in range(depth - 1, 0, -1):
        features = _transposed(features, filters[level - 1], style, level, activation_first)
        if style.dropout and level >= depth - DROPOUT_LEVELS:
            features = keras.layers.Dropout(style.dropout, name=f"decoder_{level}_dropout")(features)
        features = keras.layers.Concatenate(name=f"decoder_{level}_join")([features, skips[level - 1]])
    return features


def _strided(features, filters: int, style: BlockStyle, level: int):
    return CONVOLUTIONS[style.rank](
        filters, style.down_kernel_size, strides=2, padding="same", name=f"encoder_{level}"
    )(features)


def _transposed(features, filters: int, style: BlockStyle, level: int, activation_first: bool):
    features = TRANSPOSED_CONVOLUTIONS[style.rank](
        filters, style.up_kernel_size, strides=2, padding="same", name=f"decoder_{level}"
    )(features)
    return _normalized(features, style.on_the_way_up(), f"decoder_{level}_norm", activation_first)


def _normalized(features, style: BlockStyle, name: str, activation_first: bool = False):
    return NormalizedActivation(
        filters=features.shape[-1],
        normalization=style.normalization,
        activation=style.activation,
        activation_first=activation_first,
        recompute=style.recompute,
        name=name,
    )(features)
