"""From the last convolution to estimates of the sources, on waveforms or on magnitudes."""

from collections.abc import Callable, Sequence

import keras

from sepnet.models.layers.sources import ApplyMasks, Masks, Remainder

MASKS = ("mask", "softmax_mask")


def count_outputs(sources: Sequence[str], output: str) -> int:
    """Sources that the last convolution gives: with "difference", the last one follows from the others."""
    return len(sources) - (output == "difference")


def run_networks(network: Callable, features, *, num_outputs: int, num_channels: int, separate: bool, axis: int = -1):
    """Runs one network for all outputs, or one for each.

    Args:
        network: `(features, channels) -> raw`, makes new layers at each call.
        features: what every network sees.
        num_outputs: sources to give.
        num_channels: audio channels of each.
        separate: one for each.
        axis: of the outputs; see `make_estimates`.
    """
    if not separate:
        return network(features, num_outputs * num_channels)
    outputs = []
    for index in range(num_outputs):
        inputs = keras.Input(features.shape[1:], dtype=features.dtype)
        outputs.append(keras.Model(inputs, network(inputs, num_channels), name=f"network_{index}")(features))
    return keras.layers.Concatenate(axis=axis, dtype="float32", name="join_networks")(outputs)


def make_estimates(
    raw, mixture, *, num_sources: int, output: str, axis: int = -1, to_mixture: Callable = lambda features: features
):
    """Turns the channels of the last convolution into estimates.

    Args:
        raw: waveforms or magnitudes of `num_outputs * num_channels` channels, the sources one after the other.
        mixture: waveform or magnitudes.
        num_sources: number of sources.
        output: "direct" (as they are), "difference" (the last source is the mixture less the others), "mask" (a
            sigmoid times the mixture) or "softmax_mask" (masks that add up to one over the sources).
        axis: of the channels: -1 in waveforms, 1 in spectra.
        to_mixture: brings masks, or `raw` itself, to the axes of the mixture where they have others.

    Returns:
        The mixture's shape, with `num_sources * num_channels` channels.
    """
    if output in MASKS:
        masks = to_mixture(Masks(num_sources, output, axis=axis, dtype="float32", name="masks")(raw))
        return ApplyMasks(axis=axis, dtype="float32", name="estimates")(masks, mixture)
    raw = to_mixture(raw)
    if output == "difference":
        return Remainder(axis=axis, dtype="float32", name="estimates")(raw, mixture)
    return raw
