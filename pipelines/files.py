"""Files and folders that appear whole or not at all. Where they cannot be written, a `UserError` is raised."""

import contextlib
import errno
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping

from pipelines.errors import UserError

try:
    import fcntl
except ImportError:
    fcntl = None

# What the names of temporary folders begin with, and no name of a user's.
UNFINISHED, NEW, WORKING = ".sepnet-unfinished-", ".sepnet-new-", ".sepnet-working-"


@contextlib.contextmanager
def whole_file(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a temporary path of the same name; what was written there becomes `path` when the block ends well."""
    with _temporary_folder(path.parent) as folder:
        yield folder / path.name
        (folder / path.name).replace(path)


@contextlib.contextmanager
def whole_folder(path: pathlib.Path, *, replaces: bool = False) -> Iterator[pathlib.Path]:
    """Gives a new empty folder beside `path`, renamed to `path` when the block ends well.

    Where `path` exists already when the block ends, made by another process perhaps, that one stays, unless the new one
    `replaces` it.
    """
    with _temporary_folder(path.parent) as temporary:
        # mkdtemp makes a folder for its owner alone; a data set or a model is read by others too.
        temporary.chmod(0o755)
        yield temporary
        if replaces:
            remove_folder(path)
        try:
            temporary.rename(path)
        except OSError:
            if not path.is_dir():
                raise


def stamp(path: pathlib.Path) -> list[int]:
    """The size of a file in bytes, and when it was changed, in nanoseconds: a file of the same two is the same."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def check_writable(folder: pathlib.Path) -> None:
    """Finds out, before work begins, whether files can be written in a folder, which need not exist; leaves nothing."""
    with _no_empty_folders(folder), _writing(folder):
        tempfile.TemporaryFile(dir=folder).close()


@contextlib.contextmanager
def working_folder(parent: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a temporary folder inside `parent` that is gone afterwards, as is a `parent` that is new and empty then.

    Such folders of processes that were killed are removed first; where there is no file lock they are left.
    """
    with _no_empty_folders(parent), _writing(parent):
        for entry in parent.glob(f"{WORKING}*"):
            # Whoever else looks for abandoned ones may be faster; some are in use, and some another user's.
            others = FileNotFoundError, BlockingIOError, PermissionError
            with contextlib.suppress(*others), _lock(entry, wait=False) as is_abandoned:
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
    missing = [path for path in (folder, *folder.parents) if not os.path.exists(path)]
    try:
        yield
    finally:
        for path in missing:
            # A folder in which another process has put files meanwhile stays.
            with contextlib.suppress(OSError):
                path.rmdir()


def remove_folder(path: pathlib.Path) -> None:
    """Removes a folder, if it is there, so that no reader, and no later run, meets half of it."""
    if path.exists():
        with _temporary_folder(path.parent) as temporary:
            path.rename(temporary / path.name)


def replace_all(files: Mapping[pathlib.Path, pathlib.Path], aside: pathlib.Path) -> None:
    """Puts finished files in their places: all of them, or none where one of the places cannot be taken.

    Args:
        files: places by finished files, on one file system; folders of places are made if need be.
        aside: a folder, on the same file system, for what stood in the places. It is not needed afterwards.

    Raises:
        OSError: a place cannot be taken; what stood in the others stands there again.
    """
    old = {place: aside / f"old {index}" for index, place in enumerate(files.values())}
    with contextlib.ExitStack() as stack:
        for place in files.values():
            stack.enter_context(_no_empty_folders(place.parent))
        try:
            for new, place in files.items():
                place.parent.mkdir(parents=True, exist_ok=True)
                _keep(place, old[place])
                new.replace(place)
        except BaseException:
            for new, place in files.items():
                if os.path.lexists(old[place]):
                    old[place].replace(place)
                elif not new.exists():
                    place.unlink()
            raise


def _keep(path: pathlib.Path, aside: pathlib.Path) -> None:
    """Gives the file at a path, if there is one, a second name, or another one where there are no hard links."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if os.path.lexists(path):
        try:
            os.link(path, aside, follow_symlinks=False)
        except OSError:
            path.rename(aside)


@contextlib.contextmanager
def _temporary_folder(parent: pathlib.Path) -> Iterator[pathlib.Path]:
    with _writing(parent):
        folder = pathlib.Path(tempfile.mkdtemp(prefix=f"{UNFINISHED}{os.getpid()}-", dir=parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(folder: pathlib.Path) -> None:
    """Removes what killed runs left in `folder` that was not finished; hold its lock meanwhile."""
    for entry in list(folder.glob(f"{UNFINISHED}*")):
        shutil.rmtree(entry, ignore_errors=True)


def remove_leftovers_of(process: int, folder: pathlib.Path) -> None:
    """Removes what a process that has ended left unfinished in `folder` and below."""
    for entry in list(folder.rglob(f"{UNFINISHED}{process}-*")):
        shutil.rmtree(entry, ignore_errors=True)


@contextlib.contextmanager
def folder_lock(folder: pathlib.Path) -> Iterator[bool]:
    """Lets one process at a time work in a folder, which is made if need be; the others wait.

    The lock ends with its process, however that ends.

    Yields:
        Whether the lock is held: some systems (Windows, some network disks) have none.
    """
    with contextlib.ExitStack() as stack:
        with _writing(folder):
            is_held = stack.enter_context(_lock(folder, wait=True))
        yield is_held


@contextlib.contextmanager
def sole_lock(folder: pathlib.Path) -> Iterator[None]:
    """As `folder_lock`, but refuses at once; and a folder that is new, and empty afterwards, is gone then.

    Raises:
        UserError: another process holds the lock.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(_no_empty_folders(folder))
        with _writing(folder):
            try:
                stack.enter_context(_lock(folder, wait=False))
            except BlockingIOError as error:
                raise UserError(f"another process works in {folder}; wait for its end, or end it") from error
        yield


@contextlib.contextmanager
def new_folder(parent: pathlib.Path, names: Iterable[str]) -> Iterator[pathlib.Path]:
    """Makes a folder under the first of the names that nothing in `parent` has; gone afterwards if it is empty then.

    Of processes that do so at once, each gets another one.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(_no_empty_folders(parent))
        with _writing(parent):
            folder = next(path for name in names if _make(path := parent / name))
        try:
            yield folder
        finally:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _make(folder: pathlib.Path) -> bool:
    """Makes a folder, and says if nothing was there."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        return False
    return True


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
            raise
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
        # Of a file that cannot be renamed, the new name tells the user more.
        path = error.filename2 or error.filename or folder
        reason, remedy = error.strerror or error, "make room, or choose another folder"
        if isinstance(error, (FileExistsError, NotADirectoryError)):
            reason, remedy = "a file is where a folder is to be", "move it, or choose another folder"
        raise UserError(f"cannot write {path}: {reason}; {remedy}") from error
