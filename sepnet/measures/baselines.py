"""Baselines: estimates that need no model, which every model is compared with."""

from collections.abc import Callable
from typing import Any

SILENCE = "silence"

# For each baseline, the function `(mixture, num_sources) -> estimate`: one stem, the same for every source. The mixture
# is an array or a Keras tensor of any shape, and the estimate is another of that shape and type.
BASELINES: dict[str, Callable[[Any, int], Any]] = {
    SILENCE: lambda mixture, num_sources: 0.0 * mixture,
    "mixture/num_sources": lambda mixture, num_sources: mixture / num_sources,
}
