"""Checksums of what TensorFlow loads, as `sha256sum -c` reads them, for it aborts where some of that is damaged."""

import hashlib
import pathlib

from pipelines.errors import UserError

CHECKSUMS_FILE = pathlib.PurePath("assets.extra", "SHA256SUMS")
# The weights themselves have checksums of TensorFlow's own.
CHECKED_FILES = ("saved_model.pb", "variables/variables.index")


def write_checksums(version: pathlib.Path) -> None:
    """Writes the checksums of a SavedModel beside its contract."""
    # As bytes: Windows would end lines of text otherwise.
    (version / CHECKSUMS_FILE).write_bytes(_checksums(version).encode())


def check_checksums(version: pathlib.Path) -> None:
    """Compares a SavedModel with its checksums; one of an older export has none.

    Raises:
        UserError: a checksum differs, or a file cannot be read.
    """
    path = version / CHECKSUMS_FILE
    try:
        if not path.exists() or path.read_bytes() == _checksums(version).encode():
            return
        reason = f"{' or '.join(CHECKED_FILES)} is not what {CHECKSUMS_FILE} says"
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}"
    raise damaged(version, reason)


def damaged(version: pathlib.Path, reason: str) -> UserError:
    """The error of a SavedModel that cannot be loaded."""
    return UserError(f"cannot load the SavedModel {version}: it is damaged ({reason}); export it again")


def _checksums(version: pathlib.Path) -> str:
    return "".join(f"{hashlib.sha256((version / name).read_bytes()).hexdigest()}  {name}\n" for name in CHECKED_FILES)
