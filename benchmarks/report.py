"""Rates, and the JSON file that every benchmark writes, with the provenance of its figures."""

import json
import pathlib
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from sepnet.measures.provenance import provenance


def median_rate(run: Callable[[], float], repeats: int) -> float:
    """Runs something that returns an amount of work, several times, and returns the median amount for a second."""
    rates = []
    for _ in range(repeats):
        begin = time.perf_counter()
        amount = run()
        rates.append(amount / (time.perf_counter() - begin))
    return statistics.median(rates)


def write_json(path: pathlib.Path, figures: Mapping[str, Any]) -> None:
    """Writes figures with versions, revision and machine beside them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**figures, "provenance": provenance()}, indent=2))
    print(f"figures: {path}")
