"""The U-Net on the waveform."""

import dataclasses
from collections.abc import Sequence

from sepnet.models import BODIES
from sepnet.models.unet import Unet
from sepnet.options.fields import Section, chosen

# Widest level of the default network of 3 levels.
USUAL_FILTERS = 96


@dataclasses.dataclass(frozen=True)
class Unet1D(Unet):
    """U-Net on the waveform (Wave-U-Net: Stoller, Ewert, Dixon 2018, https://arxiv.org/abs/1806.03185).

    Deliberate differences from the paper: the output is linear instead of tanh, and any length goes in and the same
    length comes out. Upsampling is its published program's, in which the last value is held with zero padding; without
    padding the sizes are the paper's.

    >>> from sepnet.models.unet_1d import Unet1D
    >>> network = Unet1D(depth=2, base_filters=4).build(sources=("vocals", "other"), num_channels=2, sample_rate=8000)
    >>> list(network.model.output), network.grid_samples, network.receptive_field_samples
    (['vocals', 'other'], 4, 115)
    """

    body: Section = chosen(BODIES["unet_1d"], "blocks", "what lies between front and head of the network")

    @property
    def learning_rate_share(self) -> float:
        """See `Unet.learning_rate_share`: the less the wider the network is beyond `USUAL_FILTERS`.

        One step moves an output by the sum over all filters of a kernel, and nothing normalises it: with AdamW and
        0.002, networks of 9 levels and more diverged.
        """
        return min(1.0, USUAL_FILTERS / max(self.level_filters))

    def largest_depth(self, num_samples: int, sample_rate: int) -> int:
        """The largest depth that leaves the bottleneck a sample of a segment."""
        return max(num_samples, 1).bit_length() - 1

    def build(self, *, sources: Sequence[str], num_channels: int, sample_rate: int):
        """Builds the `sepnet.models.network.Network`, untrained.

        Args:
            sources: names of the stems, in order.
            num_channels: audio channels in and out.
            sample_rate: not used: a waveform network knows no Hz. Every family is built alike.

        Raises:
            UserError: options of the body do not go together.
        """
        from sepnet.models.layers.lengths import CropCenter
        from sepnet.models.network import Branch, finish
        from sepnet.models.outputs import count_outputs, run_networks

        valid_samples = self.body.valid_samples(self.depth)

        def run(mixture):
            raw = run_networks(
                lambda features, num_outputs: self.body.apply(
                    features, self.level_filters, num_outputs, recompute=self.recompute
                ),
                mixture,
                num_outputs=count_outputs(sources, self.output),
                num_channels=num_channels,
                separate=self.separate_networks,
            )
            seen = CropCenter(name="crop_to_stems")(mixture, raw) if valid_samples else mixture
            return self._estimates(raw, seen, len(sources))

        branch = Branch(run, self.body.grid(self.depth), valid_samples=valid_samples)
        return finish([branch], sources=sources, num_channels=num_channels, name="unet_1d")

    def _estimates(self, raw, mixture, num_sources: int):
        """Estimates of all sources, from what the body gives and the mixture as long as that."""
        from sepnet.models.outputs import make_estimates

        return make_estimates(raw, mixture, num_sources=num_sources, output=self.output)
