"""A hook for captions that lets tests halt workers where they want."""

import os
import pathlib
from typing import Any


def caption(facts: dict[str, Any]) -> str:
    """The caption of the template. A song with a gate, a pipe of its name in the folder GATES, waits for its end."""
    gate = pathlib.Path(os.environ["GATES"], facts["song"])
    if gate.is_fifo():
        gate.read_bytes()
    return facts["template_caption"]
