"""Checkpoints of Spleeter (Hennequin, Khlif, Voituret, Moussallam 2020, https://doi.org/10.21105/joss.02154)."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sepnet.importers.files.tensors import Tensors, read_checkpoint
from sepnet.importers.imported import Imported
from sepnet.models.bodies.spleeter import Spleeter

SAMPLE_RATE, NUM_CHANNELS = 44_100, 2
FRAME_LENGTH, FRAME_STEP = 4096, 1024
# Frames that the published program gives its networks at a time; zeros fill the last.
SEGMENT_FRAMES = 512
DEPTH = 6
# The networks begin with a transposed convolution of what the deepest one gives before its normalisation, which is
# stored all the same.
NORMS_OF_NETWORK = 2 * DEPTH
IGNORED = ("global_step", "*/Adam", "*/Adam_1", "beta*_power")


def load(folder: pathlib.Path, options: Mapping[str, Any]) -> Imported:
    """Builds the networks of a checkpoint, with all that Spleeter 2.4 does before and after them.

    Deliberate difference: the published program cuts a song into stretches of 512 frames, 11.9 s, which know nothing
    of each other; here the song is one, and a block is what the whole song has there.

    Args:
        folder: holds the checkpoint, `model.index` and `model.data-00000-of-00001`.
        options: `sources`, the stems of each instrument, in the order of Spleeter's configuration; `activation` and
            `up_activation` of the networks; `output`, "mask" or "softmax_mask"; `num_bins`, the bins that the networks
            see; `filters` of the six levels.

    Raises:
        UserError: the checkpoint is damaged, or one of other networks.
    """
    from sepnet.models.network import Branch, finish

    parts = {source: tuple(stems) for source, stems in options["sources"].items()}
    branch = Branch(
        lambda mixture: _estimates(mixture, len(parts), options),
        grid_samples=FRAME_STEP * SEGMENT_FRAMES,
        takes_any_length=True,
    )
    network = finish([branch], sources=list(parts), num_channels=NUM_CHANNELS, name="spleeter")
    tensors = read_checkpoint(folder, IGNORED)
    for index in range(len(parts)):
        _fill(network.model.get_layer(f"network_{index}"), index, tensors)
    tensors.check_all_taken()
    return Imported(network, parts, SAMPLE_RATE, NUM_CHANNELS)


def _estimates(mixture, num_sources: int, options: Mapping[str, Any]):
    """From a waveform to waveforms, the sources one after the other."""
    from pipelines.batches.spectra import make_spectra
    from sepnet.models.layers.frequency import FromFeatures, ToFeatures
    from sepnet.models.layers.lengths import CropLike, Delay, PadToGrid
    from sepnet.models.layers.magnitudes import AddBins, LowestBins, Polar, Rectangular
    from sepnet.models.layers.sources import ApplyMasks, Masks, WienerStep
    from sepnet.models.outputs import run_networks

    body = Spleeter(
        down_kernel_size=5,
        up_kernel_size=5,
        normalization="batch",
        activation=options["activation"],
        up_activation=options["up_activation"],
    )
    spectra = make_spectra(frame_length=FRAME_LENGTH, frame_step=FRAME_STEP)
    # The program puts a window of zeros before the song. The STFT does so but for one step, and where a frame lies
    # among those that convolutions take together changes what they give.
    delayed = Delay(FRAME_STEP, dtype="float32", name="delay")(mixture)
    real, imag = spectra.stft(delayed)
    magnitudes, *phase = Polar(dtype="float32", name="polar")(real, imag)
    seen = LowestBins(options["num_bins"], dtype="float32", name="lowest_bins")(magnitudes)
    padded = PadToGrid((1, 1, SEGMENT_FRAMES, 1), dtype="float32", name="pad")(seen)

    def network(features, count: int):
        # Nothing lies below the deepest level.
        raw = body.apply(features, [*options["filters"], 0], count, recompute=False)
        return FromFeatures(dtype="float32", name="from_features")(raw)

    raw = run_networks(
        network,
        ToFeatures(name="to_features")(padded),
        num_outputs=num_sources,
        num_channels=NUM_CHANNELS,
        separate=True,
        axis=1,
    )
    masks = Masks(num_sources, options["output"], axis=1, dtype="float32", name="masks")(
        CropLike(channel_axis=1, dtype="float32", name="crop")(raw, seen)
    )
    # The networks' estimates share the mixture by their powers, and no stem has what is above their bins.
    shares = WienerStep(axis=1, dtype="float32", name="shares")(
        ApplyMasks(axis=1, dtype="float32", name="apply_masks")(masks, seen), seen
    )
    missing = FRAME_LENGTH // 2 + 1 - options["num_bins"]
    estimates = Rectangular(axis=1, dtype="float32", name="rectangular")(
        AddBins(missing, False, dtype="float32", name="add_bins")(shares), *phase
    )
    return Delay(-FRAME_STEP, dtype="float32", name="undo_delay")(spectra.inverse_stft(*estimates, delayed))


def _fill(network, index: int, tensors: Tensors) -> None:
    """Fills one of the networks, by the names that Keras counts on from one network to the next."""

    def name(kind: str, number: int) -> str:
        return f"{kind}_{number}" if number else kind

    def fill(layer, name_of_layer: str, members: Sequence[str], **changes) -> None:
        for member in members:
            tensors.into(getattr(layer, member), f"{name_of_layer}/{member}", **changes.get(member, {}))

    convolutions, transposed = (DEPTH + 1) * index, DEPTH * index
    norms = NORMS_OF_NETWORK * index
    statistics = ("gamma", "beta", "moving_mean", "moving_variance")
    for level in range(DEPTH):
        fill(network.get_layer(f"encoder_{level}"), name("conv2d", convolutions + level), ("kernel", "bias"))
        below = DEPTH - 1 - level
        # Published, what the way down had stands before what comes from below, which is as much.
        swap = {"kernel": {"change": lambda kernel: np.roll(kernel, kernel.shape[-1] // 2, axis=-1)}} if level else {}
        decoder = network.get_layer(f"decoder_{below}")
        fill(decoder, name("conv2d_transpose", transposed + level), ("kernel", "bias"), **swap)
        norm = network.get_layer(f"decoder_{below}_norm").normalization
        fill(norm, name("batch_normalization", norms + DEPTH + level), statistics)
        encoder_norm = name("batch_normalization", norms + level)
        if level == DEPTH - 1:
            tensors.leave(*(f"{encoder_norm}/{member}" for member in statistics))
        else:
            fill(network.get_layer(f"encoder_{level}_norm").normalization, encoder_norm, statistics)
    fill(network.get_layer("stems"), name("conv2d", convolutions + DEPTH), ("kernel", "bias"))
