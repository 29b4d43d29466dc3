"""A hook for captions that lets tests halt workers where they want."""

import os
import pathlib
import resource
import signal
from typing import Any


def caption(facts: dict[str, Any]) -> str:
    """The caption of the template. A song with a gate, a pipe of its name in the folder GATES, waits for its end."""
    gate = pathlib.Path(os.environ["GATES"], facts["song"])
    if gate.is_fifo():
        gate.read_bytes()
    return facts["template_caption"]


def caption_on_a_full_disk(facts: dict[str, Any]) -> str:
    """The caption of the template. From then on a limit on the size of files stands for a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    return facts["template_caption"]


def caption_that_ends(facts: dict[str, Any]) -> str:
    """The caption of the template. At clips of the kind ENDS_AT of one song the program ends."""
    if facts["song"] == "poison" and facts["kind"] == os.environ["ENDS_AT"]:
        raise KeyboardInterrupt
    return facts["template_caption"]


def caption_that_kills(facts: dict[str, Any]) -> str:
    """The caption of the template. One song ends its worker as a crash, or a lack of memory, would."""
    if facts["song"] == "song2":
        os.kill(os.getpid(), signal.SIGKILL)
    return facts["template_caption"]
