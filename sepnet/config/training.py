"""Options of training: how the weights are found."""

import dataclasses
import pkgutil

from pipelines.batches import AUGMENTATIONS
from pipelines.errors import UserError
from sepnet.options.checks import LARGEST
from sepnet.options.fields import Section, option

# Functions `(sources, estimates) -> [num_sources]`; see `sepnet.training.losses`.
LOSSES = {
    "mse": "sepnet.training.losses:mse",
    "l1": "sepnet.training.losses:l1",
    "magnitude_mse": "sepnet.training.losses:magnitude_mse",
    "magnitude_l1": "sepnet.training.losses:magnitude_l1",
    "multi_resolution_stft": "sepnet.training.losses:multi_resolution_stft",
}


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """An optimizer that there is.

    Attributes:
        path: of its class, a subclass of `keras.optimizers.Optimizer`.
        learning_rate: the step size at the start where the options give none.
        num_moments: the values that it keeps for each weight of a kernel.
    """

    path: str
    learning_rate: float
    num_moments: int


OPTIMIZERS = {
    "muon": Optimizer("sepnet.training.optimizers:Muon", learning_rate=8e-3, num_moments=1),
    "adamw": Optimizer("keras.optimizers:AdamW", learning_rate=2e-3, num_moments=2),
}
STEP_SIZES = ", ".join(f"{optimizer.learning_rate:g} with {name}" for name, optimizer in OPTIMIZERS.items())


def are_weights(value: tuple) -> bool:
    """give numbers from 0 up, not all of them 0"""
    return all(isinstance(weight, (int, float)) and 0 <= weight <= LARGEST[float] for weight in value) and any(value)


@dataclasses.dataclass(frozen=True)
class Optimisation(Section):
    """Loss, optimiser and budget of training."""

    epochs: int = option(8, "epochs; validation and checkpoints come after each", at_least=1)
    steps_per_epoch: int = option(50, "batches in an epoch", at_least=1)
    minutes: float | None = option(
        None, "train for so long, validation included, instead of for so many epochs", at_least=0.01
    )
    joules: float | None = option(None, "train until so much energy is spent, instead", at_least=0.01)
    batch_size: int = option(4, "segments in a batch", at_least=1)
    patience: int = option(0, "epochs without a lower val_mse after which training ends; 0: never", at_least=0)
    loss: str = option("l1", "what is minimised, on waveforms or on STFT magnitudes", choices=LOSSES)
    source_weights: tuple[float, ...] | None = option(
        None, "weight of each source in the loss, with commas (default: 1)", rule=are_weights
    )
    optimizer: str = option(
        "muon",
        "how gradients become steps: Muon, which moves kernels by as much in every direction, or AdamW",
        choices=OPTIMIZERS,
    )
    learning_rate: float | None = option(
        None,
        f"step size at the start (default: {STEP_SIZES}; in wide networks of unet_1d less)",
        at_least=0.0,
    )
    schedule: str = option(
        "cosine",
        "the learning rate stays, falls to zero along a cosine, or to a tenth half-way",
        choices=("constant", "cosine", "step"),
    )
    warmup_steps: int = option(0, "batches over which the learning rate rises to its value", at_least=0)
    clip_norm: float = option(0.0, "gradients together longer than this are shortened to it; 0: never", at_least=0.0)
    weight_decay: float = option(
        0.0, "share of the weights that is taken away with each unit of step size", at_least=0.0
    )
    ema: float = option(
        0.99,
        "momentum of averaged weights, which are then validated and exported; 0: none",
        at_least=0.0,
        at_most=0.9999,
    )
    accumulation: int = option(1, "batches whose gradients are added up for one update", at_least=1)
    devices: int = option(1, "GPUs of this host that every batch is split over", at_least=1)
    precision: str = option("float32", "precision of features", choices=("float32", "mixed_bfloat16", "mixed_float16"))
    xla: bool = option(
        False, "compile the training step with XLA, as JAX always does; on two CPU cores TensorFlow alone is faster"
    )


AUGMENTATION_OPTIONS = {name: pkgutil.resolve_name(path).option for name, path in AUGMENTATIONS.items()}
# With one field for each augmentation, as it describes its option.
Augmented = dataclasses.make_dataclass(
    "Augmented",
    [(name, type(described["default"]), option(**described)) for name, described in AUGMENTATION_OPTIONS.items()],
    bases=(Optimisation,),
    frozen=True,
)


@dataclasses.dataclass(frozen=True)
class Training(Augmented):
    """Loss, optimiser, budget and augmentation of training."""

    seed: int = option(0, "seed of weights, segments and augmentation", at_least=0, at_most=2**32 - 1)

    @property
    def augmentations(self) -> dict[str, bool | float]:
        """The values of the augmentations' options."""
        return {name: getattr(self, name) for name in AUGMENTATIONS}

    def check_together(self) -> None:
        """Checks that the options go together.

        Raises:
            UserError: they do not.
        """
        if self.batch_size % self.devices:
            raise UserError(
                f"--batch-size {self.batch_size} cannot be split over --devices {self.devices}; give a multiple of that"
            )
        if None not in (self.minutes, self.joules):
            raise UserError("--minutes and --joules were given; leave out one of them")
