"""The JSON file that every benchmark writes, with the provenance of its figures."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from pipelines.files import whole_file
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


def write_json(path: pathlib.Path, figures: Mapping[str, Any]) -> None:
    """Writes figures with versions, revision and machine beside them."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps({**figures, "provenance": provenance()}, indent=2))
    print(f"figures: {path}")
