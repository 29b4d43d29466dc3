"""Files out of published archives: the wanted ones, and nothing that an archive may do besides."""

import contextlib
import errno
import fnmatch
import functools
import glob
import lzma
import os
import pathlib
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

from pipelines.errors import UserError, one_line

# No published network is as large.
MOST_BYTES = 2 << 30
# zipfile raises a RuntimeError for what is encrypted, and for a compression that it does not know.
DAMAGES = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, RuntimeError)


@contextlib.contextmanager
def unpacked(path: pathlib.Path, wanted: Sequence[str]) -> Iterator[pathlib.Path]:
    """Gives a folder that holds wanted files, for as long as the block lasts.

    Args:
        path: a folder with such files in it or below, or with others that an own training has called otherwise; one of
            the files; or an archive, tar or zip, of them.
        wanted: patterns of their names; what else an archive holds is not unpacked.

    Raises:
        UserError: there is no such file, there are several of one name, or the archive is damaged, encrypted, or holds
            links, paths that lead outside, more than 2 GiB, or none of the files.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist; give the published file, or the folder that was unpacked from it")
    if not (path.is_file() or path.is_dir()):
        raise UserError(f"{path} is a pipe or a device; give a file, or a folder")
    place, files = path, None
    if path.is_dir():
        below = (file for file in path.rglob("*") if _is_wanted(file.name, wanted) and file.is_file())
        files = list(below) or list(path.iterdir())
    elif _is_wanted(path.name, wanted):
        # It alone, or the files of one of TensorFlow's checkpoints; more may lie beside them.
        is_part = path.suffix == ".index" or path.suffix.startswith(".data-")
        place, beside = path.parent, path.parent.glob(f"{glob.escape(path.stem)}.*") if is_part else [path]
        files = [file for file in beside if _is_wanted(file.name, wanted)]
    elif not _is_archive(path):
        raise UserError(f"{path} is no archive and no file of {' or '.join(wanted)}")
    with _working_folder(place) as folder:
        if files is None:
            _unpack(path, folder, wanted)
        for file in files or ():
            _new(folder / file.name, path).symlink_to(file.absolute())
        yield folder


def only_file(folder: pathlib.Path, *suffixes: str) -> pathlib.Path:
    """The one file of some suffixes in a folder.

    Raises:
        UserError: there is none, or there are several.
    """
    found = sorted(path for path in folder.iterdir() if path.suffix in suffixes)
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise UserError(f"{folder} must hold one file {' or '.join(suffixes)}; it holds {names}; give --weights one")
    return found[0]


@contextlib.contextmanager
def _working_folder(place: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder for a while, which errors call by the place that its files are from."""
    with tempfile.TemporaryDirectory() as name:
        try:
            yield pathlib.Path(name)
        except UserError as error:
            raise UserError(str(error).replace(name, str(place))) from error


def _is_archive(path: pathlib.Path) -> bool:
    try:
        return tarfile.is_tarfile(path) or zipfile.is_zipfile(path)
    except EOFError as error:
        raise UserError(f"{path} is damaged ({one_line(error)}); fetch it again") from error


def _unpack(path: pathlib.Path, folder: pathlib.Path, wanted: Sequence[str]) -> None:
    try:
        found = _unpack_members(path, folder, wanted)
    except (*DAMAGES, OSError) as error:
        # Of damage, gzip and bz2 raise one without the number that the disk's have; places may be damaged, and names.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL, errno.ENAMETOOLONG):
            raise
        raise UserError(
            f"{path} is damaged or encrypted ({one_line(error)[:120]}); fetch it again, or give --weights what you "
            "unpacked from it"
        ) from error
    if not found:
        raise UserError(f"{path} holds no file of {' or '.join(wanted)}; it is another archive")


def _unpack_members(path: pathlib.Path, folder: pathlib.Path, wanted: Sequence[str]) -> bool:
    found, total = False, 0
    for name, size, is_plain, open_member in _members(path):
        total += size
        parts = pathlib.PurePosixPath(name.replace("\\", "/")).parts
        if not is_plain or ".." in parts or name.startswith(("/", "\\")):
            raise UserError(f"{path} holds {one_line(name)!r}, a link or a path that leads outside; do not trust it")
        if total > MOST_BYTES:
            raise UserError(f"{path} holds more than {MOST_BYTES >> 30} GiB; no published network does")
        if parts and _is_wanted(parts[-1], wanted):
            with open_member() as source, open(_new(folder / parts[-1], path), "xb") as target:
                shutil.copyfileobj(source, target)
            found = True
    return found


def _new(file: pathlib.Path, place: pathlib.Path) -> pathlib.Path:
    """The path of a file that is to be; refused where the place that they are from holds several of one name."""
    if os.path.lexists(file):
        raise UserError(f"{place} holds several files {file.name}; give --weights the one that is meant")
    return file


def _members(path: pathlib.Path) -> Iterator[tuple[str, int, bool, Callable[[], BinaryIO]]]:
    """Name, size, whether it is a plain file, and a function that opens it, of each member that is no folder."""
    if tarfile.is_tarfile(path):
        with tarfile.open(path) as archive:
            for member in archive:
                if not member.isdir():
                    yield member.name, member.size, member.isfile(), functools.partial(archive.extractfile, member)
    else:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if not member.is_dir():
                    is_link = stat.S_ISLNK(member.external_attr >> 16)
                    yield member.filename, member.file_size, not is_link, functools.partial(archive.open, member)


def _is_wanted(name: str, wanted: Sequence[str]) -> bool:
    # Macs put files ._NAME beside others.
    return not name.startswith("._") and any(fnmatch.fnmatchcase(name, pattern) for pattern in wanted)
