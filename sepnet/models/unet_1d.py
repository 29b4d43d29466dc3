"""The U-Net on the waveform."""

from collections.abc import Sequence

import keras

from sepnet.models.blocks import BlockStyle, CropLike, PadToGrid
from sepnet.models.network import Network, round_up
from sepnet.models.outputs import Estimates, SplitSources, num_outputs
from sepnet.models.unet import context, level_filters, unet


def build_unet_1d(
    *,
    sources: Sequence[str],
    num_channels: int,
    sample_rate: int,
    depth: int,
    base_filters: int,
    filter_growth: str,
    output: str,
    **style,
) -> Network:
    """Builds a 1-D U-Net (Wave-U-Net: Stoller, Ewert, Dixon 2018, https://arxiv.org/abs/1806.03185).

    Deliberate differences from the paper: the output is linear instead of tanh, upsampling does not move the grid
    with the length, and ends are padded with zeros, so that any length goes in and the same length comes out.

    Args:
        sources: names of the stems, in order.
        num_channels: audio channels in and out.
        sample_rate: not used: a waveform model knows no Hz. Every builder is called alike.
        depth: number of levels, 1 or more.
        base_filters: filters of the first level.
        filter_growth: "add" or "double"; see `level_filters`.
        output: "direct", "difference" (the last source is the mixture less the others), "mask" (a sigmoid on each
            sample) or "softmax_mask" (masks that add up to one over the sources).
        **style: the remaining fields of `BlockStyle`.
    """
    style = BlockStyle(rank=1, **style)
    grid = 2**depth
    mixture = keras.Input((None, num_channels), name="mixture")
    padded = PadToGrid(grid, name="pad")(mixture)
    features = unet(padded, level_filters(depth, base_filters, filter_growth), style)
    features = keras.layers.Concatenate(name="join_mixture")([features, padded])
    # Waveforms and masks stay float32 under any precision policy.
    raw = keras.layers.Conv1D(num_outputs(sources, output) * num_channels, 1, dtype="float32", name="stems")(features)
    raw = CropLike(dtype="float32", name="crop")(raw, mixture)
    stacked = Estimates(len(sources), output, dtype="float32", name="estimates")(raw, mixture)
    stems = SplitSources(list(sources), dtype="float32", name="sources")(stacked)
    return Network(keras.Model(mixture, stems, name="unet_1d"), grid, round_up(context(depth, style), grid))
