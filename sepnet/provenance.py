"""Where a result comes from: versions of the stack, the code's revision, the machine."""

import datetime
import importlib.metadata
import os
import pathlib
import platform
import subprocess

PACKAGES = ("sepnet", "tensorflow", "keras", "tensorflow-io", "numpy", "musdb", "keras-tuner")


def provenance() -> dict[str, str | int | dict[str, str | None] | None]:
    """Versions by package (None where it is not installed), git revision, Python, machine, and the time in UTC."""
    return {
        "versions": {package: _version(package) for package in PACKAGES},
        "git_revision": _git_revision(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "num_cores": os.cpu_count(),
        "time_utc": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_revision() -> str | None:
    """The commit of the code that runs, with "-dirty" behind it if files were changed; None outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        answer = subprocess.run(command, cwd=pathlib.Path(__file__).parent, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return answer.stdout.strip() or None
