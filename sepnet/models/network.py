"""`Network`, which every family builds, and `finish`, which makes one of the branches of a family."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import keras

from sepnet.models.graph_walk import reach
from sepnet.models.layers.lengths import CropCenter, CropLike, PadMargin, PadToGrid
from sepnet.models.layers.sources import SplitSources


@dataclasses.dataclass(frozen=True)
class Network:
    """A model from waveform to stems.

    Attributes:
        model: Functional model from `[batch, num_samples, num_channels]` to a dict of one such tensor for each
            source, in the order of the sources; any batch, any number of samples, float32, full scale ±1.
        grid_samples: blocks that begin at a multiple of this see the same grid as the whole song.
        reach_samples: the most samples before, or after, an output sample that it depends on, rounded up to the grid;
            None if it depends on all of them.
        core: what is trained: `model` itself, or the part of it that takes a mixture with `margin_samples` more at
            either end and gives stems without them.
        margin_samples: see `core`; 0 for models that pad with zeros.
        first_samples: stems of `core` have this length, or a multiple of `grid_samples` more.
        receptive_field_samples: samples that one output sample depends on, for the one that sees most; None if it sees
            all of them.
    """

    model: keras.Model
    grid_samples: int
    reach_samples: int | None
    core: keras.Model
    margin_samples: int = 0
    first_samples: int = 0
    receptive_field_samples: int | None = None

    def training_samples(self, segment_samples: int) -> int:
        """The length of the training segments: the one asked for, or the next that `core` can give."""
        if not self.margin_samples:
            return segment_samples
        return self.first_samples + round_up(max(segment_samples - self.first_samples, 0), self.grid_samples)


@dataclasses.dataclass(frozen=True)
class Branch:
    """A way from the mixture to estimates of all sources.

    Attributes:
        run: `(mixture) -> estimates`, from `[batch, num_samples, num_channels]` to
            `[batch, num_samples, num_sources * num_channels]`, the sources one after the other.
        grid_samples: a shift of the mixture by this shifts the estimates likewise.
        takes_any_length: else the mixture is filled up to a multiple of the grid.
        valid_samples: the shortest mixture and estimates, for a branch without padding; None for others.
    """

    run: Callable
    grid_samples: int
    takes_any_length: bool = False
    valid_samples: tuple[int, int] | None = None


def finish(branches: Sequence[Branch], *, sources: Sequence[str], num_channels: int, name: str) -> Network:
    """Makes a network of branches: pads the mixture, runs them, adds their estimates, splits these and cuts them.

    Args:
        branches: one or more; those without padding all have the same grid.
        sources: names of the stems, in order.
        num_channels: audio channels in and out.
        name: of the model.
    """
    grid = math.lcm(*(branch.grid_samples for branch in branches))
    valid = max((branch.valid_samples for branch in branches if branch.valid_samples), default=None)
    margin, first_samples = ((valid[0] - valid[1]) // 2, valid[1]) if valid else (0, grid)
    if not valid and all(branch.takes_any_length for branch in branches):
        mixture = keras.Input((None, num_channels), name="mixture")
        model = core = keras.Model(mixture, _stems(branches, mixture, sources, False), name=name)
    else:
        padded = keras.Input((None, num_channels), name="padded")
        core = keras.Model(padded, _stems(branches, padded, sources, bool(valid)), name="core")
        mixture = keras.Input((None, num_channels), name="mixture")
        pad = PadMargin(margin, first_samples, grid, name="pad") if valid else PadToGrid((1, grid, 1), name="pad")
        stems = core(pad(mixture))
        # TensorFlow takes few characters in the names of layers, and sources may have any.
        stems = {
            source: CropLike(dtype="float32", name=f"crop_{index}")(stems[source], mixture)
            for index, source in enumerate(sources)
        }
        model = keras.Model(mixture, stems, name=name)
    found = reach(core, first_samples + 2 * margin, grid)
    field, before, after = found or (None, 0, 0)
    # In a core without padding, the estimates begin `margin` samples after the mixture that it is given.
    farthest = max(before + margin, after - margin, 0)
    return Network(
        model,
        grid_samples=grid,
        reach_samples=None if found is None else round_up(farthest, grid),
        core=core if valid else model,
        margin_samples=margin,
        first_samples=first_samples,
        receptive_field_samples=field,
    )


def _stems(branches: Sequence[Branch], mixture, sources: Sequence[str], is_valid: bool) -> dict:
    estimates = [branch.run(mixture) for branch in branches]
    if len(estimates) > 1:
        if is_valid:
            shortest = next(each for each, branch in zip(estimates, branches, strict=True) if branch.valid_samples)
            estimates = [
                each if each is shortest else CropCenter(dtype="float32", name=f"crop_branch_{index}")(each, shortest)
                for index, each in enumerate(estimates)
            ]
        estimates = [keras.layers.Add(dtype="float32", name="add_branches")(estimates)]
    return SplitSources(list(sources), dtype="float32", name="sources")(estimates[0])


def round_up(num_samples: int, grid: int) -> int:
    """The next multiple of `grid`."""
    return -(-num_samples // grid) * grid
