"""The origin of a result: versions of the stack, the code's revision, the machine."""

import datetime
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import subprocess
from collections.abc import Mapping

PACKAGES = ("sepnet", "tensorflow", "keras", "tensorflow-io", "numpy", "musdb", "keras-tuner", "jax")


def provenance() -> dict[str, str | int | dict[str, str | None] | None]:
    """Versions by package (None where it is not installed), git revision, Python, machine, and the time in UTC."""
    return {
        "versions": {package: _version(package) for package in PACKAGES},
        "git_revision": _git_revision(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "num_cores": os.cpu_count(),
        "time_utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def content_hash(files: Mapping[str, pathlib.Path]) -> str:
    """SHA-256 of the names and the content of files, in the order of their names."""
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256")
        digest.update(f"{name} {content.hexdigest()}\n".encode())
    return digest.hexdigest()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_revision() -> str | None:
    """The commit of the code that runs, with "-dirty" behind it if files were changed; None outside a checkout."""
    checkout = pathlib.Path(__file__).parents[2]
    # Installed inside of a repository of the user's, it is no part of that.
    if not (checkout / ".git").exists():
        return None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        answer = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return answer.stdout.strip() or None
