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
        context_samples: how many samples on either side an output sample can depend on, a multiple of the grid; None
            if it depends on all of them.
        core: what is trained: `model` itself, or the part of it that takes a mixture with `margin_samples` more at
            either end and gives stems without them.
        margin_samples: see `core`; 0 for models that pad with zeros.
        first_samples: stems of `core` have this length, or a multiple of `grid_samples` more.
    """

    model: keras.Model
    grid_samples: int
    context_samples: int | None
    core: keras.Model
    margin_samples: int = 0
    first_samples: int = 0

    def training_samples(self, segment_samples: int) -> int:
        """The length of the training segments: the one asked for, or the next that `core` can give."""
        if not self.margin_samples:
            return segment_samples
        return self.first_samples + round_up(max(segment_samples - self.first_samples, 0), self.grid_samples)


def round_up(num_samples: int, grid: int) -> int:
    """The next multiple of `grid`."""
    return -(-num_samples // grid) * grid
