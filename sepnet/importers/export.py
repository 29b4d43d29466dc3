"""SavedModels of imported networks."""

import pathlib
from collections.abc import Mapping
from typing import Any

from sepnet.export.contract import make_contract
from sepnet.export.write import export_model
from sepnet.importers.tensors import Imported


def export_imported(
    imported: Imported, folder: pathlib.Path, name: str, entry: Mapping[str, Any], costs: Mapping[str, Any]
) -> pathlib.Path:
    """Exports an imported network as a new version of a model.

    Args:
        imported: of an importer.
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
        sources=list(imported.parts),
        sample_rate=imported.sample_rate,
        num_channels=imported.num_channels,
        grid_samples=imported.network.grid_samples,
        context_samples=imported.network.reach_samples,
        parts=imported.parts,
        **({"block_samples": imported.block_samples} if imported.block_samples else {}),
        costs=dict(costs),
        published={"name": name, **{key: entry[key] for key in ("reference", "licence", "url")}},
    )
    return export_model(imported.network.model, folder, contract)
