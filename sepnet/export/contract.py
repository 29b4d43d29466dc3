"""The contract: what a model says of itself, in a file beside it or through a server."""

from typing import Any

from pipelines.errors import UserError

# The least and the most of each number that a model needs: what is allocated for one second of audio stays bounded.
RANGES = {"sample_rate": (1, 1 << 20), "num_channels": (1, 64), "grid_samples": (1, 1 << 24)}


def check_contract(contract: Any, where: str) -> dict[str, Any]:
    """Refuses a contract that no model can have.

    Args:
        contract: what was read of it.
        where: what errors call it.

    Returns:
        The same, in which `sources`, `sample_rate`, `num_channels`, `grid_samples` and `context_samples` are what
        `sepnet.separation.separator.Separator` expects.

    Raises:
        UserError: it is another.
    """
    if not isinstance(contract, dict):
        raise _damaged(where, f"it is no JSON object but {contract!r:.40}")
    for key, (least, most) in RANGES.items():
        if not _is_whole(contract.get(key), least, most):
            raise _damaged(where, f"{key} is {contract.get(key)!r:.40}; expected a whole number of {least} to {most}")
    context = contract.get("context_samples", "missing")
    if context is not None and not _is_whole(context, 0):
        raise _damaged(where, f"context_samples is {context!r:.40}; expected a whole number from 0, or null")
    sources = contract.get("sources")
    if not (isinstance(sources, list) and sources and all(map(_is_name, sources)) and len({*sources}) == len(sources)):
        raise _damaged(where, f"sources is {sources!r:.40}; expected a list of names that differ")
    return contract


def _is_whole(value: Any, least: int, most: int | None = None) -> bool:
    # To Python, True is a number.
    return type(value) is int and least <= value and (most is None or value <= most)


def _is_name(value: Any) -> bool:
    # JSON may hold halves of characters, which no file can be called after.
    return isinstance(value, str) and bool(value) and value.isprintable()


def _damaged(where: str, reason: str) -> UserError:
    return UserError(f"{where} is damaged: {reason}; export the model again")
