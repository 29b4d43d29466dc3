"""`Config`: everything that a run depends on, and its JSON."""

import dataclasses
import json
import sys
from collections.abc import Mapping
from typing import Any

from pipelines.errors import UserError
from sepnet.config.data import Data
from sepnet.config.old_layouts import modern_model, modern_training
from sepnet.config.training import OPTIMIZERS, Training
from sepnet.models import DEFAULT_FAMILY, FAMILIES, family_class
from sepnet.models.unet import Unet
from sepnet.models.unet_2d import Unet2D
from sepnet.options.checks import flag
from sepnet.options.fields import check_keys
from sepnet.options.registry import name_of


@dataclasses.dataclass(frozen=True)
class Config:
    """A whole run: what is read, which model, and how it is trained."""

    data: Data = dataclasses.field(default_factory=Data)
    model: Unet = dataclasses.field(default_factory=Unet2D)
    training: Training = dataclasses.field(default_factory=Training)

    @property
    def family(self) -> str:
        """Name of the model's family."""
        return name_of(FAMILIES, type(self.model))

    @property
    def learning_rate(self) -> float:
        """The step size at the start: the one that was given, or the optimizer's usual one, as the model takes it."""
        given, usual = self.training.learning_rate, OPTIMIZERS[self.training.optimizer].learning_rate
        return usual * self.model.learning_rate_share if given is None else given

    def build(self, sample_rate: int):
        """Builds the `sepnet.models.network.Network`, untrained, for a sample rate in Hz.

        Raises:
            UserError: options of the model do not go together.
        """
        return self.model.build(
            sources=list(self.data.parts), num_channels=self.data.num_channels, sample_rate=sample_rate
        )

    def changed(self, values: Mapping[str, Any]) -> "Config":
        """A copy with other values. With another optimizer, and no step size for it, that is the usual one again.

        Args:
            values: by option, of whichever section has it.

        Raises:
            UserError: no section has such an option, or a value is out of range.
        """
        if values.get("optimizer", self.training.optimizer) != self.training.optimizer:
            values = {"learning_rate": None, **values}
        sections = {name: section.changed(values) for name, section in vars(self).items()}
        known = set().union(*(section.names() for section in sections.values()))
        stray = sorted(set(values) - known)
        if stray:
            owner = self.family
            if stray[0] in sections["model"].any_options():
                owner = f"{owner} with --body {sections['model'].to_values()['body']['name']}"
            raise UserError(f"{flag(stray[0])} is no option of {owner}; see --help for the options of each family")
        return Config(**sections)

    def largest_depth(self, sample_rate: int) -> int:
        """The largest depth that a training segment has room for, at a rate in Hz."""
        return self.model.largest_depth(self.data.segment_samples(sample_rate), sample_rate)

    def check_depth(self, sample_rate: int, depth: int | None = None) -> None:
        """Refuses a depth, by default the config's, that a training segment has no room for.

        Raises:
            UserError: the depth is too large; the message names the largest that fits.
        """
        largest, depth = self.largest_depth(sample_rate), depth or self.model.depth
        if depth > largest:
            in_any_segment = self.model.largest_depth(sys.maxsize, sample_rate)
            remedy = "raise --segment-seconds" if depth <= in_any_segment else "give the network more bins"
            raise UserError(
                f"depth {depth} does not fit a segment of {self.data.segment_seconds} s at {sample_rate} Hz: the "
                f"largest depth of {self.family} is {largest}; lower the depth or {remedy}"
            )

    def depths(self, sample_rate: int) -> list[int]:
        """All depths that a training segment has room for, at a rate in Hz.

        Raises:
            UserError: it has room for none.
        """
        self.check_depth(sample_rate, 1)
        return list(range(1, self.largest_depth(sample_rate) + 1))

    def to_values(self) -> dict[str, Any]:
        """Plain values of the whole config, for JSON."""
        return {"family": self.family, **{name: section.to_values() for name, section in vars(self).items()}}

    def to_json(self) -> str:
        """The whole config as indented JSON."""
        return json.dumps(self.to_values(), indent=2)

    @classmethod
    def from_json(cls, text: str | bytes) -> "Config":
        """Reads what `to_json` wrote, or an older version of it.

        Raises:
            UserError: the text is no JSON object, a key that nothing reads, no such family, or a value out of range.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"the config is not JSON ({error})") from error
        return cls.from_values(values)

    @classmethod
    def from_values(cls, values: Any) -> "Config":
        """Makes a config of what `to_values` gives, or an older version did.

        Raises:
            UserError: as `from_json`, but for the JSON itself.
        """
        check_keys(values, ["family", *cls.__dataclass_fields__], "the config")
        model = family_class(values.get("family", DEFAULT_FAMILY))
        plain = {name: values.get(name, {}) for name in cls.__dataclass_fields__}
        sections = {"data": Data, "model": model, "training": Training}
        plain["model"] = modern_model(model, plain["model"])
        plain["training"] = modern_training(plain["training"])
        return cls(**{name: section.from_values(plain[name]) for name, section in sections.items()})
