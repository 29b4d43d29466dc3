"""One SavedModel of several."""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping

from sepnet.combination.members import Members
from sepnet.combination.weights import Fit, Weights
from sepnet.export.contract import make_contract
from sepnet.export.saved_model import SavedModel
from sepnet.export.signatures import SERVING_DEFAULT, in_groups
from sepnet.export.write import export_function


def export_combination(
    members: Members, weights: Weights, folder: pathlib.Path, fits: Mapping[str, Fit]
) -> pathlib.Path:
    """Writes a model whose every source is the weighted sum of what its members estimate.

    It holds copies of the members that have a weight, and stands without them. Blocks of a song join exactly where
    they do in all members: its grid is a multiple of theirs, its context the largest.

    Args:
        members: of `sepnet.combination.members.read_members`.
        weights: for every source a number for each member, not all 0.
        folder: `saved_models/<name>`.
        fits: where the weights come from, for the contract; empty if they were given.

    Returns:
        Folder of the new version.

    Raises:
        UserError: a member is damaged, or the folder cannot be written.
    """
    heard = [place for place in range(len(members.models)) if any(values[place] for values in weights.values())]
    models = [SavedModel(members.models[place].path) for place in heard]
    kept = {source: [values[place] for place in heard] for source, values in weights.items()}
    contexts = [model.contract["context_samples"] for model in models]
    blocks = [model.contract["block_samples"] for model in models if model.contract.get("block_samples")]
    contract = make_contract(
        name=folder.name,
        sources=list(weights),
        sample_rate=members.sample_rate,
        num_channels=members.num_channels,
        grid_samples=math.lcm(*(model.contract["grid_samples"] for model in models)),
        context_samples=None if None in contexts else max(contexts),
        parts=members.parts,
        members=[
            {
                "name": model.name,
                "version": model.path.name,
                "weights": {source: values[place] for source, values in kept.items()},
            }
            for place, model in enumerate(models)
        ],
        **({"others": members.others} if members.others else {}),
        **({"block_samples": min(blocks)} if blocks else {}),
        **({"fits": {source: dataclasses.asdict(fit) for source, fit in fits.items()}} if fits else {}),
    )

    def run(mixture):
        stems = [in_groups(_function_of(model), mixture, model.contract["num_channels"]) for model in models]
        return {
            source: sum(weight * each[source] for weight, each in zip(values, stems, strict=True) if weight)
            for source, values in kept.items()
        }

    return export_function(run, folder, contract, keep=[model.loaded for model in models])


def _function_of(model: SavedModel) -> Callable:
    """From a mixture to a dict of stems; signatures take arguments by their names alone."""
    separate = model.signatures[SERVING_DEFAULT]
    return lambda mixture: separate(mixture=mixture)
