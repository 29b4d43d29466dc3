"""`Unet`: options that the families share."""

import dataclasses

from sepnet.options.fields import Section, option

GROWTHS = ("add", "double", "constant")
# Outputs that are complex spectra, and the numbers that a network gives for each of their values.
COMPLEX_OUTPUTS = {"complex_mask": 2, "bounded_mask": 2, "consistent_mask": 2, "decoupled_mask": 4, "spectra": 2}
OUTPUTS = ("direct", "difference", "mask", "softmax_mask")


@dataclasses.dataclass(frozen=True)
class Unet(Section):
    """A U-Net of any family: front, body and head. Subclasses have `largest_depth` and `build`, and most a `body`."""

    depth: int = option(6, "number of down/up levels", at_least=1)
    base_filters: int = option(24, "filters of the first level", at_least=1)
    filter_growth: str = option("add", "filters of deeper levels: base added, doubled or the same", choices=GROWTHS)
    separate_networks: bool = option(False, "a network of its own for each source, instead of one for all")
    recompute: bool = option(False, "save memory: compute activations again for the gradient instead of keeping them")
    output: str = option(
        "direct",
        "stems as they come, the last source as the mixture less the others, or masks on the mixture",
        choices=OUTPUTS,
    )

    @property
    def learning_rate_share(self) -> float:
        """The share of an optimizer's usual step size that the network takes: less than 1 where that is too large."""
        return 1.0

    @property
    def level_filters(self) -> list[int]:
        """Filters of each level and, last, of the bottleneck.

        "add" gives base, 2·base, 3·base, ... (Wave-U-Net); "double" gives base, 2·base, 4·base, ... (Jansson et al.).
        """
        factors = {"add": lambda level: level + 1, "double": lambda level: 2**level, "constant": lambda level: 1}
        return [self.base_filters * factors[self.filter_growth](level) for level in range(self.depth + 1)]
