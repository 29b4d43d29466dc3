"""Places by address: local paths, and whatever fsspec opens (`s3://bucket/folder`)."""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipelines.errors import RunError, UserError, check_packages, one_line

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


def open_place(address: str) -> tuple["AbstractFileSystem", str]:
    """Returns the file system of an address, and the path on it.

    What a file system once listed is not kept: others write there, too.

    Args:
        address: `protocol://...`, or a local path.

    Raises:
        UserError: fsspec or the package for such addresses is missing, or there is none.
    """
    check_packages(["fsspec"], "collections and stem sets", "augment")
    import fsspec

    if "://" not in address:
        return fsspec.filesystem("file"), pathlib.Path(os.path.abspath(os.path.expanduser(address))).as_posix()
    if "::" in address:
        raise UserError(f"{address!r} is an address inside another one; unpack or copy it, and give its own address")
    try:
        return fsspec.url_to_fs(address, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise UserError(
            f"{address!r} cannot be opened ({one_line(error)}); give a local path, or install the package of fsspec "
            "that opens it"
        ) from error


def is_local(system: "AbstractFileSystem") -> bool:
    """True if the paths on a file system are those of this machine."""
    from fsspec.implementations.local import LocalFileSystem

    return isinstance(system, LocalFileSystem)


def address_of(system: "AbstractFileSystem", path: str) -> str:
    """Returns the address of a path, which `open_place` takes: a local path as it is."""
    return path if is_local(system) else system.unstrip_protocol(path)


@contextlib.contextmanager
def reaching(address: str) -> Iterator[None]:
    """Makes a `UserError` of what a file system raises in a block: some have errors of their own beside `OSError`.

    It is a `RunError` unless that file is not there or may not be read: another one could not be reached either.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not isinstance(error, OSError) and type(error).__module__ == "builtins":
            raise
        reason = getattr(error, "strerror", None) or error or type(error).__name__
        kind = UserError if isinstance(error, FileNotFoundError | PermissionError) else RunError
        raise kind(
            f"cannot reach {address}: {one_line(reason)}; check the address, the connection and your rights"
        ) from error


def check_name(name: str, what: str) -> None:
    """Raises a `UserError` unless a name is a path that stays below a folder: `album/song`.

    Args:
        name: with `/` between its parts.
        what: has that name, and stands before it in the error.
    """
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise UserError(f"{what} {name!r} is no name of a file below a folder; expected one like 'album/song'")
