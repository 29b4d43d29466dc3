"""Small models and noise for the tests of `sepnet`."""

import itertools

import keras
import numpy as np

from sepnet.export.contract import make_contract
from sepnet.models import family_class
from sepnet.models.bodies.blocks import DOWNSAMPLINGS, UPSAMPLINGS

SOURCES = ("vocals", "drums", "bass")
SAMPLE_RATE = 8000
SMALL = {
    "unet_1d": {"base_filters": 3},
    "unet_2d": {"base_filters": 2, "frame_length": 64, "frame_step": 16, "subbands": 1},
    "unet_hybrid": {"base_filters": 8},
}

# Networks that tests export, by name: of each family, one that is trained with context, and one on complex spectra.
EXPORTED = {
    "unet_1d": ("unet_1d", {}),
    "unet_1d_context": ("unet_1d", {"padding": "valid", "downsampling": "filtered", "upsampling": "learned"}),
    "unet_2d": ("unet_2d", {}),
    "unet_2d_complex": (
        "unet_2d",
        {"body": "tfc_tdf", "features": "complex", "output": "decoupled_mask", "subbands": 2, "normalization": "frame"},
    ),
    "unet_hybrid": ("unet_hybrid", {}),
}
# Those that have bodies made of blocks.
BLOCK_FAMILIES = ("unet_1d", "unet_2d")
WAYS = list(itertools.product(DOWNSAMPLINGS, UPSAMPLINGS))
# With context the sizes of Wave-U-Net: only these keep the grid without padding.
CONTEXT_WAYS = [(down, up) for down, up in WAYS if down in ("decimate", "filtered") and up != "transposed"]


def small_network(family, *, sources=SOURCES, num_channels=2, seed=0, **options):
    """Builds an untrained network of a family, small unless the options say otherwise; by seed the same weights."""
    keras.utils.set_random_seed(seed)
    network = fresh_network(family, sources=sources, num_channels=num_channels, **options)
    for variable in network.model.trainable_variables:
        # A last convolution that begins with zeros would hide all that lies before it.
        if variable.name == "kernel" and not np.any(variable):
            variable.assign(noise(*variable.shape))
    return network


def fresh_network(family, *, sources=SOURCES, num_channels=2, **options):
    """Such a network as it is before training."""
    section = small_section(family, **options)
    return section.build(sources=sources, num_channels=num_channels, sample_rate=SAMPLE_RATE)


def small_section(family, **options):
    """The config section of such a network."""
    return family_class(family)().changed({"depth": 2, **SMALL[family], **options})


def contract_of(network, *, sources=SOURCES, num_channels=2, sample_rate=SAMPLE_RATE):
    """The contract of a small network that was not trained."""
    return make_contract(
        name="small",
        sources=list(sources),
        sample_rate=sample_rate,
        num_channels=num_channels,
        grid_samples=network.grid_samples,
        context_samples=network.reach_samples,
        parts={source: [source] for source in sources},
    )


def noise(*shape, seed=0):
    """Uniform noise at half of full scale, float32."""
    return np.random.default_rng(seed).uniform(-0.5, 0.5, shape).astype(np.float32)


def stacked(stems, sources=SOURCES):
    """A dict of stems as one array `[batch, num_samples, num_sources, num_channels]`."""
    return np.stack([np.asarray(stems[source]) for source in sources], axis=2)


def tone(num_channels, sample_rate, num_samples):
    """A chord at half of full scale that differs from channel to channel, `[num_samples, num_channels]`."""
    seconds = np.arange(num_samples)[:, None] / sample_rate
    hz = 220 * (1 + np.arange(num_channels)) + 7 * np.sin(seconds)
    return (0.5 * np.sin(2 * np.pi * hz * seconds)).astype(np.float32)
