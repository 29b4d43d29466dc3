"""`Imported`, which every importer returns: a published network, which becomes a SavedModel."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sepnet.export.contract import make_contract
from sepnet.export.write import export_model

if TYPE_CHECKING:
    from sepnet.models.network import Network


@dataclasses.dataclass(frozen=True)
class Imported:
    """A published network with its weights.

    Attributes:
        network: the whole of it, from waveform to stems.
        parts: the stems of MUSDB18 whose sum each source is.
        sample_rate: Hz.
        num_channels: audio channels in and out.
        block_samples: what it is given of a song at once, for one that looks at all that it is given.
    """

    network: "Network"
    parts: dict[str, tuple[str, ...]]
    sample_rate: int
    num_channels: int
    block_samples: int | None = None

    def export(
        self, folder: pathlib.Path, name: str, entry: Mapping[str, Any], costs: Mapping[str, Any]
    ) -> pathlib.Path:
        """Writes the network as a new version of a model.

        Args:
            folder: `saved_models/<name>`.
            name: in the catalogue.
            entry: of the catalogue; the contract keeps its `reference`, `licence` and `url`.
            costs: of `sepnet.planning.costs.count_separation`.

        Returns:
            Folder of the new version.

        Raises:
            UserError: the weights hold NaN or infinity, or the folder cannot be written.
        """
        contract = make_contract(
            name=folder.name,
            sources=list(self.parts),
            sample_rate=self.sample_rate,
            num_channels=self.num_channels,
            grid_samples=self.network.grid_samples,
            context_samples=self.network.reach_samples,
            parts=self.parts,
            **({"block_samples": self.block_samples} if self.block_samples else {}),
            costs=dict(costs),
            published={"name": name, **{key: entry[key] for key in ("reference", "licence", "url")}},
        )
        return export_model(self.network.model, folder, contract)
