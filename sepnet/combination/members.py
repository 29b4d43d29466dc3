"""The models that are combined, and what they must agree in."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from pipelines.errors import UserError
from sepnet.export.contract import read_contract
from sepnet.export.saved_model import parts_of
from sepnet.export.write import newest_version


@dataclasses.dataclass(frozen=True)
class Member:
    """One of the models.

    Attributes:
        path: folder of the version.
        contract: its contract.
        parts: the stems whose sum each of its sources is.
    """

    path: pathlib.Path
    contract: dict[str, Any]
    parts: dict[str, tuple[str, ...]]

    def __str__(self) -> str:
        return self.path.resolve().parent.name


@dataclasses.dataclass(frozen=True)
class Members:
    """Models that agree.

    Attributes:
        models: two or more.
        sample_rate: Hz, of all.
        num_channels: the most that any takes; those that take fewer run on groups of channels.
        parts: the stems whose sum each source is, of all sources that are wanted.
    """

    models: tuple[Member, ...]
    sample_rate: int
    num_channels: int
    parts: dict[str, tuple[str, ...]]

    @property
    def parts_of_songs(self) -> dict[str, tuple[str, ...]]:
        """The stems of all that the models give, wanted or not, which add up to a song: as sources of one stem each.

        The first source is the first model's own, for mixtures of recordings have a ratio of it to the others.
        """
        first, *_ = self.models[0].parts.values()
        stems = (stem for model in self.models for part in model.parts.values() for stem in part)
        others = [(stem,) for stem in dict.fromkeys(stems) if stem not in first]
        return {"+".join(part): part for part in (first, *others)}

    @property
    def others(self) -> list[str]:
        """The stems of songs that no source that is wanted holds."""
        wanted = {stem for stems in self.parts.values() for stem in stems}
        return [stem for stems in self.parts_of_songs.values() for stem in stems if stem not in wanted]


def read_members(paths: Sequence[pathlib.Path], sources: Sequence[str] | None = None) -> Members:
    """Reads the contracts of models, without loading them.

    Args:
        paths: folders of two or more models, or of versions of them.
        sources: those that are wanted, in order; None for all.

    Raises:
        UserError: there is no SavedModel, no model has a source, or the models do not agree: in their rates, in which
            stems a source is, or in numbers of channels of which one is no multiple of another.
    """
    if len(paths) < 2:
        raise UserError(f"one model, {paths[0]}; a combination needs two or more")
    models = tuple(_read_member(path) for path in paths)
    for key, words in (("sample_rate", "Hz"), ("num_channels", "channels")):
        # Models may have one name: it is that of a folder.
        values = [model.contract[key] for model in models]
        most = max(values)
        if any(most % value if key == "num_channels" else most != value for value in values):
            listed = ", ".join(f"{model} {value} {words}" for model, value in zip(models, values, strict=True))
            raise UserError(f"the models take different audio ({listed}); combine those that take the same")
    parts: dict[str, tuple[str, ...]] = {}
    for model in models:
        for source, stems in model.parts.items():
            if set(parts.setdefault(source, stems)) != set(stems):
                raise UserError(
                    f"{source} is {'+'.join(parts[source])} in one model and {'+'.join(stems)} in {model}; combine "
                    "models whose sources of one name are the same"
                )
    if missing := [source for source in sources or () if source not in parts]:
        raise UserError(f"no model has {', '.join(map(repr, missing))}; they have {', '.join(parts)}")
    if len({*(sources or ())}) < len(sources or ()):
        raise UserError(f"--sources are {', '.join(sources)}; name each of them once")
    parts = {source: parts[source] for source in sources or parts}
    most_channels = max(model.contract["num_channels"] for model in models)
    return Members(models, models[0].contract["sample_rate"], most_channels, parts)


def _read_member(path: pathlib.Path) -> Member:
    version = newest_version(path)
    contract = read_contract(version)
    return Member(version, contract, parts_of(contract, version))
