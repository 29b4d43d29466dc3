"""What every family builds: a waveform model together with the grid that it works on."""

import dataclasses

import keras


@dataclasses.dataclass(frozen=True)
class Network:
    """A model from waveform to stems.

    Attributes:
        model: Functional model from `[batch, num_samples, num_channels]` to a dict of one such tensor for each
            source, in the order of the sources; any batch, any number of samples, float32, full scale ±1.
        grid_samples: blocks that begin at a multiple of this see the same grid as the whole song.
        context_samples: how many samples on either side an output sample can depend on; a multiple of the grid.
    """

    model: keras.Model
    grid_samples: int
    context_samples: int


def round_up(num_samples: int, grid: int) -> int:
    """The next multiple of `grid`."""
    return -(-num_samples // grid) * grid
