"""Rates, and the JSON file that every benchmark writes, with the provenance of its figures."""

import json
import pathlib
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from sepnet.measures.provenance import provenance

# What `unet_2d` was when most tables were made, beside which later ones can be set: unfolded, under a short window.
SHORT_WINDOW = {
    "base_filters": 12,
    "frame_length": 1024,
    "frame_step": 256,
    "subbands": 1,
    "downsampling": "pooled",
    "upsampling": "linear",
}


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
