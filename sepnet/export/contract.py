"""The contract: what a model says of itself, in a file beside it or through a server."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

from pipelines.errors import UserError, one_line

CONTRACT_FILE = pathlib.PurePath("assets.extra", "sepnet.json")
CONTRACT_FORMAT = 1
# The least and the most of each number that a model needs: what is allocated for one second of audio stays bounded.
NUMBER_RANGES = {"sample_rate": (1, 1 << 20), "num_channels": (1, 64), "grid_samples": (1, 1 << 24)}


def make_contract(
    *,
    name: str,
    sources: Sequence[str],
    sample_rate: int,
    num_channels: int,
    grid_samples: int,
    context_samples: int | None,
    **details: Any,
) -> dict[str, Any]:
    """Makes the contract of a model.

    Args:
        name: of the model.
        sources: names of what it gives, in order.
        sample_rate: Hz.
        num_channels: audio channels in and out.
        grid_samples: see `sepnet.models.network.Network`.
        context_samples: the network's `reach_samples`.
        **details: plain values for JSON: `block_samples`, what a model that looks at all it is given was trained on;
            and for whoever compares models `parts`, the stems whose sum each source is, and those of a run's summary
            and its `config`.

    Raises:
        UserError: no model can have such a contract.
    """
    contract = {
        "format": CONTRACT_FORMAT,
        "name": name,
        "sources": list(sources),
        "sample_rate": sample_rate,
        "num_channels": num_channels,
        "grid_samples": grid_samples,
        "context_samples": context_samples,
        **details,
    }
    if fault := _fault(contract):
        raise UserError(f"{one_line(name)} cannot be exported: {fault}; mend that, and make it anew")
    return contract


def read_contract(version: pathlib.Path) -> dict[str, Any]:
    """Reads the contract of a SavedModel.

    Raises:
        UserError: the SavedModel is not one of this project's, or its contract is damaged.
    """
    path = version / CONTRACT_FILE
    try:
        contract = json.loads(path.read_text())
        if not isinstance(contract, dict):
            raise ValueError("it is no JSON object")
    except OSError as error:
        raise UserError(f"{version} has no {CONTRACT_FILE}; it is no SavedModel that sepnet exported") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}); export the model again") from error
    if contract.get("format") != CONTRACT_FORMAT:
        raise UserError(f"{path} has format {contract.get('format')}; this sepnet reads {CONTRACT_FORMAT}")
    return check_contract(contract, str(path))


def check_contract(contract: Any, where: str) -> dict[str, Any]:
    """Returns any value of JSON if it can be a contract; errors call it what `where` says.

    Raises:
        UserError: a value that `sepnet.separation.separator.Separator` needs is missing or out of range.
    """
    if fault := _fault(contract):
        raise UserError(f"{where} is damaged: {fault}; export the model again")
    return contract


def _fault(contract: Any) -> str:
    """The first thing that is wrong with a contract; empty where nothing is."""
    if not isinstance(contract, dict):
        return f"it is no JSON object but {contract!r:.40}"
    for key, (least, most) in NUMBER_RANGES.items():
        if not _is_whole(contract.get(key), least, most):
            return f"{key} is {contract.get(key)!r:.40}; expected a whole number of {least} to {most}"
    context = contract.get("context_samples", "missing")
    if context is not None and not _is_whole(context, 0):
        return f"context_samples is {context!r:.40}; expected a whole number from 0, or null"
    block = contract.get("block_samples")
    if block is not None and not _is_whole(block, *NUMBER_RANGES["grid_samples"]):
        return f"block_samples is {block!r:.40}; expected a whole number, or null"
    sources = contract.get("sources")
    if not (isinstance(sources, list) and sources and all(map(_is_name, sources)) and len({*sources}) == len(sources)):
        return f"sources is {sources!r:.40}; expected a list of names that differ, each of one line"
    parts = contract.get("parts", dict.fromkeys(sources, sources))
    if not (isinstance(parts, dict) and set(parts) == set(sources) and all(map(_are_names, parts.values()))):
        return f"parts is {parts!r:.40}; expected a list of stems for each of the sources"
    if "others" in contract and not _are_names(contract["others"]):
        return f"others is {contract['others']!r:.40}; expected a list of stems"
    for key in ("metrics", "costs"):
        if not isinstance(contract.get(key, {}), dict):
            return f"{key} is {contract[key]!r:.40}; expected a JSON object"
    return ""


def _is_whole(value: Any, least: int, most: int | None = None) -> bool:
    # To Python, True is a number.
    return type(value) is int and least <= value and (most is None or value <= most)


def _are_names(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(map(_is_name, value))


def _is_name(value: Any) -> bool:
    # JSON may hold halves of characters, which no file can be called after, and names stand in lines of text.
    return isinstance(value, str) and bool(value) and one_line(value) == value
