"""Commands that a benchmark runs, each in a process of its own."""

import subprocess
from collections.abc import Sequence


def run_child(command: Sequence[object], **options) -> subprocess.CompletedProcess:
    """Runs a command, with options of `subprocess.run`.

    Raises:
        SystemExit: it failed, with its status: it has told why.
    """
    finished = subprocess.run(list(map(str, command)), **options)
    if finished.returncode:
        raise SystemExit(finished.returncode)
    return finished
