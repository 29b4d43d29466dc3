"""`Body`: options and members that every body has."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from sepnet.options.fields import Section, option

NORMALIZATIONS = ("none", "renorm", "batch", "frame", "group", "instance")
ACTIVATIONS = ("leaky_relu", "relu", "elu", "gelu")


@dataclasses.dataclass(frozen=True)
class Body(Section):
    """A U-Net of convolutions, between the front of a network and its head.

    Attributes:
        usual_subbands: bands of the spectrum that become channels before it, unless the option says otherwise.
    """

    usual_subbands: ClassVar[int] = 1

    down_kernel_size: int = option(3, "kernel of the way down", at_least=1)
    up_kernel_size: int = option(3, "kernel of the way up", at_least=1)
    normalization: str = option("renorm", "normalisation after each convolution", choices=NORMALIZATIONS)
    activation: str = option("leaky_relu", "activation after each convolution", choices=ACTIVATIONS)
    up_activation: str | None = option(None, "activation on the way up (default: the same)", choices=ACTIVATIONS)
    dropout: float = option(
        0.0,
        "share of features dropped on the way up (jansson, spleeter: in its three deepest levels)",
        at_least=0.0,
        at_most=0.9,
    )

    def apply(
        self, features, filters: Sequence[int], num_outputs: int, *, recompute: bool, starts_at_zero: bool = False
    ):
        """Makes the layers and runs features through them.

        Args:
            features: `[batch, axes..., channels]`; the axes are multiples of `grid(depth)` in time and of
                `frequency_grid(depth)`.
            filters: of each level and, last, of the bottleneck; one more than the depth.
            num_outputs: channels that it gives, before any mask.
            recompute: layers keep little for the gradient, and compute the rest again.
            starts_at_zero: the last convolution has no weights but zeros before training.

        Returns:
            float32 `[batch, axes..., num_outputs]`.
        """
        raise NotImplementedError

    def grid(self, depth: int) -> int:
        """Values in time that become one in the bottleneck; a shift by so many shifts the output likewise."""
        return 2**depth

    def frequency_grid(self, depth: int) -> int:
        """Bins that become one in the bottleneck."""
        return self.grid(depth)

    def valid_samples(self, depth: int) -> tuple[int, int] | None:
        """The shortest input and output of a body without padding; others have multiples of `grid(depth)` more.

        None for a body that pads with zeros.
        """
        return None

    def _activation(self, is_up: bool) -> str:
        return self.up_activation or self.activation if is_up else self.activation

    def _normalized(self, features, name: str, recompute: bool, activation: str, activation_first: bool = False):
        """Features with the normalisation and an activation, in this order or the other."""
        from sepnet.models.layers.convolution import NormalizedActivation

        return NormalizedActivation(
            filters=features.shape[-1],
            normalization=self.normalization,
            activation=activation,
            activation_first=activation_first,
            recompute=recompute,
            name=name,
        )(features)


def last_initializer(starts_at_zero: bool) -> str:
    """The initializer of the last convolution's kernel."""
    return "zeros" if starts_at_zero else "glorot_uniform"
