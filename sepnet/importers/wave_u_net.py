"""Checkpoints of Wave-U-Net (Stoller, Ewert, Dixon 2018, https://arxiv.org/abs/1806.03185)."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from sepnet.config.presets import read_preset
from sepnet.importers.files.tensors import read_checkpoint
from sepnet.importers.imported import Imported
from sepnet.models.unet_1d import Unet1D

IGNORED = ("separator_solver/*", "global_step")


@dataclasses.dataclass(frozen=True)
class WaveUnet(Unet1D):
    """The network as published: outputs pass a hyperbolic tangent, and the remainder is cut at full scale.

    The published program cuts a song into stretches of 16,389 samples (16,384 without context). The network is not the
    same at all places, but at every 4,096th, so what it makes of a stretch depends on where that begins. Here the song
    is one, as the network saw it in training at the beginning of a segment.
    """

    def _estimates(self, raw, mixture, num_sources: int):
        """See `Unet1D`."""
        import keras

        from sepnet.models.layers.sources import Clip

        bounded = keras.layers.Activation("tanh", dtype="float32", name="tanh")(raw)
        return Clip(dtype="float32", name="clip")(super()._estimates(bounded, mixture, num_sources))


def load(folder: pathlib.Path, options: Mapping[str, Any]) -> Imported:
    """Builds the network of a checkpoint, which does not say what it is.

    Args:
        folder: holds the checkpoint, `NAME.index` and `NAME.data-00000-of-00001`.
        options: `preset`, the name of the preset with its structure; `sample_rate`, where it has another; `model`,
            fields of the network in which it differs.

    Raises:
        UserError: the checkpoint is damaged, or one of another network.
    """
    config = read_preset(options["preset"])
    parts, num_channels = config.data.parts, config.data.num_channels
    rate = options.get("sample_rate", config.data.sample_rate)
    fields = {field.name: getattr(config.model, field.name) for field in dataclasses.fields(config.model)}
    section = WaveUnet(**fields).changed(options.get("model", {}))
    network = section.build(sources=list(parts), num_channels=num_channels, sample_rate=rate)
    tensors = read_checkpoint(folder, IGNORED)
    layers = {layer.name: layer for layer in network.model.get_layer("core").layers}
    names = [f"separator/conv1d{f'_{index}' if index else ''}" for index in range(2 * section.depth + 1)]

    def fill(layer, name: str, change=lambda kernel: kernel) -> None:
        tensors.into(layer.kernel, f"{name}/kernel", change=change)
        tensors.into(layer.bias, f"{name}/bias")

    for level in range(section.depth):
        fill(layers[f"encoder_{level}"].convolution, names[level])
    fill(layers["bottleneck"].convolution, names[section.depth])
    for index, level in enumerate(reversed(range(section.depth))):
        # What comes from below stands before what the way down had; published, it is the other way round.
        swap = functools.partial(_last_first, size=section.level_filters[level])
        fill(layers[f"decoder_{level}"].convolution, names[section.depth + 1 + index], swap)
        if section.body.upsampling == "learned":
            shares = layers[f"decoder_{level}_upsample"].weights_before_sigmoid
            tensors.into(shares, f"separator/interp_{index}", change=lambda weights: weights[None])
    num_outputs = len(parts) - (section.output == "difference")
    outputs = [f"separator/conv1d_{2 * section.depth + 1 + index}" for index in range(num_outputs)]
    # All sources come of one convolution here, whose features stand before the mixture.
    tensors.into(
        layers["stems"].kernel,
        *(f"{name}/kernel" for name in outputs),
        change=lambda *kernels: np.concatenate([_last_first(kernel, num_channels) for kernel in kernels], axis=2),
    )
    tensors.into(
        layers["stems"].bias, *(f"{name}/bias" for name in outputs), change=lambda *biases: np.concatenate(biases)
    )
    tensors.check_all_taken()
    return Imported(network, parts, rate, num_channels)


def _last_first(kernel: np.ndarray, size: int) -> np.ndarray:
    """A kernel `[width, inputs, outputs]` whose first inputs, `size` of them, come last."""
    return np.concatenate([kernel[:, size:], kernel[:, :size]], axis=1)
