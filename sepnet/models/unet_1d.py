"""The U-Net on the waveform."""

from collections.abc import Sequence

import keras

from pipelines.errors import UserError
from sepnet.models.blocks import BlockStyle, CropCenter, CropLike, PadContext, PadToGrid
from sepnet.models.network import Network, round_up
from sepnet.models.outputs import SplitSources, estimates, num_outputs, one_or_each
from sepnet.models.unet import context, level_filters, unet, valid_lengths


def build_unet_1d(
    *,
    sources: Sequence[str],
    num_channels: int,
    sample_rate: int,
    depth: int,
    base_filters: int,
    filter_growth: str,
    output: str,
    separate_networks: bool,
    **style,
) -> Network:
    """Builds a 1-D U-Net (Wave-U-Net: Stoller, Ewert, Dixon 2018, https://arxiv.org/abs/1806.03185).

    Deliberate differences from the paper: the output is linear instead of tanh, and any length goes in and the same
    length comes out. With zero padding, upsampling holds the last value, so that it does not move the grid with the
    length; with context the sizes are the paper's.

    Args:
        sources: names of the stems, in order.
        num_channels: audio channels in and out.
        sample_rate: not used: a waveform model knows no Hz. Every builder is called alike.
        depth: number of levels, 1 or more.
        base_filters: filters of the first level.
        filter_growth: "add" or "double"; see `level_filters`.
        output: what the last convolution gives; see `outputs.estimates`. It acts on samples.
        separate_networks: one for each source that the last convolution gives, instead of one for all.
        **style: the remaining fields of `BlockStyle`.

    Raises:
        UserError: context is asked for with blocks that keep no grid without padding, or with even kernels.
    """
    style = BlockStyle(rank=1, **style)
    has_context = style.padding == "context"
    if has_context and (style.downsampling not in ("decimate", "filtered") or style.upsampling == "transposed"):
        raise UserError(
            f"--padding context does not go with --downsampling {style.downsampling} --upsampling {style.upsampling}; "
            "take decimate or filtered, and linear or learned"
        )
    if has_context and not (style.down_kernel_size % 2 and style.up_kernel_size % 2):
        raise UserError(
            f"--padding context does not go with kernels of {style.down_kernel_size} and {style.up_kernel_size}: "
            "without padding even ones move the features by half a sample; take odd ones"
        )
    padded = keras.Input((None, num_channels), name="padded")

    def network(waveform, channels):
        features = unet(waveform, level_filters(depth, base_filters, filter_growth), style)
        seen = CropCenter(name="crop_mixture")(waveform, features) if has_context else waveform
        features = keras.layers.Concatenate(name="join_mixture")([features, seen])
        # Waveforms and masks stay float32 under any precision policy.
        return keras.layers.Conv1D(channels, 1, dtype="float32", name="stems")(features)

    raw = one_or_each(
        network,
        padded,
        num_outputs=num_outputs(sources, output),
        num_channels=num_channels,
        separate=separate_networks,
    )
    seen = CropCenter(name="crop_to_stems")(padded, raw) if has_context else padded
    stacked = estimates(raw, seen, num_sources=len(sources), output=output)
    stems = SplitSources(list(sources), dtype="float32", name="sources")(stacked)
    core = keras.Model(padded, stems, name="core")

    mixture = keras.Input((None, num_channels), name="mixture")
    grid = 2**depth
    if has_context:
        first_input, first_output = valid_lengths(depth, style)
        margin = (first_input - first_output) // 2
        pad = PadContext(margin, first_output, grid, name="pad")
    else:
        margin, pad = 0, PadToGrid(grid, name="pad")
    stems = core(pad(mixture))
    stems = {source: CropLike(dtype="float32", name=f"crop_{source}")(stems[source], mixture) for source in sources}
    model = keras.Model(mixture, stems, name="unet_1d")
    return Network(
        model,
        grid_samples=grid,
        # Between two places of the coarsest grid an output sees up to a step of it more than the margin.
        context_samples=round_up(margin + grid if has_context else context(depth, style), grid)
        if style.is_local
        else None,
        core=core if has_context else model,
        margin_samples=margin,
        first_samples=first_output if has_context else grid,
    )
