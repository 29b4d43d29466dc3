"""Files and folders that appear whole or not at all."""

import contextlib
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator

from pipelines.errors import UserError

try:
    import fcntl
except ImportError:
    fcntl = None

# The names that `tempfile.mkdtemp` makes of the prefixes below.
TEMPORARY_FOLDER = re.compile(r"\..+-[a-z0-9_]{8}")
NEW, WORKING = ".sepnet-new-", ".sepnet-working-"


@contextlib.contextmanager
def whole_file(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a temporary path beside `path`; what was written there becomes `path` when the block ends well.

    Raises:
        UserError: the folder cannot be written.
    """
    with _writing(path.parent):
        temporary = path.with_name(f".{os.getpid()}-{path.name}")
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a new empty folder beside `path`, renamed to `path` when the block ends well.

    Where `path` exists already when the block ends, made by another process perhaps, that one stays.

    Raises:
        UserError: the parent folder cannot be written.
    """
    with _writing(path.parent):
        temporary = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        try:
            # mkdtemp makes a folder for its owner alone; a data set or a model is read by others too.
            temporary.chmod(0o755)
            yield temporary
            try:
                temporary.rename(path)
            except OSError:
                if not path.is_dir():
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def check_writable(folder: pathlib.Path) -> None:
    """Finds out, before work begins, whether files can be written in a folder, which need not exist; leaves nothing.

    Raises:
        UserError: they cannot.
    """
    with _no_empty_folders(folder), _writing(folder):
        tempfile.TemporaryFile(dir=folder).close()


@contextlib.contextmanager
def working_folder(parent: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a temporary folder inside `parent` that is gone afterwards, as is a `parent` that is new and empty then.

    Such folders of processes that were killed are removed first; where there is no file lock they are left.

    Raises:
        UserError: `parent` cannot be written, or the disk is full.
    """
    with _no_empty_folders(parent), _writing(parent):
        for entry in parent.glob(f"{WORKING}*"):
            # Whoever else looks for abandoned ones may be faster.
            with contextlib.suppress(FileNotFoundError), _lock(entry, wait=False) as is_abandoned:
                if is_abandoned:
                    shutil.rmtree(entry, ignore_errors=True)
        new = pathlib.Path(tempfile.mkdtemp(prefix=NEW, dir=parent))
        with _lock(new, wait=False):
            # Only now it has a name that others look for: they would take it for abandoned.
            folder = new.rename(parent / new.name.replace(NEW, WORKING))
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _no_empty_folders(folder: pathlib.Path) -> Iterator[None]:
    """Removes a folder afterwards, and those above it, if it was not there before and is empty."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    finally:
        for path in missing:
            # What another process put there meanwhile stays.
            with contextlib.suppress(OSError):
                path.rmdir()


def remove_folder(path: pathlib.Path) -> None:
    """Removes a folder so that no reader, and no later run, meets half of it."""
    with _writing(path.parent):
        temporary = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        path.rename(temporary / path.name)
        shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(folder: pathlib.Path) -> None:
    """Removes what killed runs left of `whole_folder` and `remove_folder` in `folder`; hold its lock meanwhile."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        if TEMPORARY_FOLDER.fullmatch(entry.name) and entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)


@contextlib.contextmanager
def folder_lock(folder: pathlib.Path) -> Iterator[bool]:
    """Lets one process at a time work in a folder, which is made if need be; the others wait.

    The lock ends with its process, however that ends.

    Yields:
        Whether the lock is held: some systems (Windows, some network disks) have none.

    Raises:
        UserError: the folder cannot be made.
    """
    with contextlib.ExitStack() as stack:
        with _writing(folder):
            is_held = stack.enter_context(_lock(folder, wait=True))
        yield is_held


@contextlib.contextmanager
def _lock(folder: pathlib.Path, *, wait: bool) -> Iterator[bool]:
    if fcntl is None:
        yield False
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield _flock(descriptor, folder, wait)
    finally:
        os.close(descriptor)


def _flock(descriptor: int, folder: pathlib.Path, wait: bool) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if not wait:
            return False
        print(f"waiting for another process that works in {folder}", flush=True)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _writing(folder: pathlib.Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {error.filename or folder}: {error.strerror}; nothing was left there: "
            "make room, or choose another folder"
        ) from error
