"""Files out of published archives: the wanted ones, and nothing that an archive may do besides."""

import contextlib
import fnmatch
import functools
import glob
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
DAMAGES = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, NotImplementedError)


@contextlib.contextmanager
def unpacked(path: pathlib.Path, wanted: Sequence[str]) -> Iterator[pathlib.Path]:
    """Gives a folder that holds wanted files, for as long as the block lasts.

    Args:
        path: such a folder itself, one of the files in it, or an archive, tar or zip, of them.
        wanted: patterns of their names; what else an archive holds is not unpacked.

    Raises:
        UserError: there is no such file, the archive is damaged or holds links, paths that lead outside or more than
            2 GiB, or none of the files is in it.
    """
    if path.is_dir():
        yield path
    elif not path.exists():
        raise UserError(f"{path} does not exist; give the published file, or the folder that was unpacked from it")
    elif _is_wanted(path.name, wanted):
        with _working_folder(path.parent) as folder:
            # It alone, or the files of one of TensorFlow's checkpoints; more may lie beside them.
            path = path.absolute()
            is_part = path.suffix == ".index" or path.suffix.startswith(".data-")
            for file in path.parent.glob(f"{glob.escape(path.stem)}.*") if is_part else [path]:
                if _is_wanted(file.name, wanted):
                    (folder / file.name).symlink_to(file)
            yield folder
    elif not (tarfile.is_tarfile(path) or zipfile.is_zipfile(path)):
        raise UserError(f"{path} is no archive and no file of {' or '.join(wanted)}")
    else:
        with _working_folder(path) as folder:
            try:
                found = _unpack(path, folder, wanted)
            except DAMAGES as error:
                raise UserError(f"{path} is damaged ({one_line(error)[:120]}); fetch it again") from error
            if not found:
                raise UserError(f"{path} holds no file of {' or '.join(wanted)}; it is another archive")
            yield folder


@contextlib.contextmanager
def _working_folder(place: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder for a while, which errors call by the place that its files are from."""
    with tempfile.TemporaryDirectory() as name:
        try:
            yield pathlib.Path(name)
        except UserError as error:
            raise UserError(str(error).replace(name, str(place))) from error


def _unpack(path: pathlib.Path, folder: pathlib.Path, wanted: Sequence[str]) -> bool:
    found, total = False, 0
    for name, size, is_plain, open_member in _members(path):
        total += size
        parts = pathlib.PurePosixPath(name.replace("\\", "/")).parts
        if not is_plain or ".." in parts or name.startswith(("/", "\\")):
            raise UserError(f"{path} holds {one_line(name)!r}, a link or a path that leads outside; do not trust it")
        if total > MOST_BYTES:
            raise UserError(f"{path} holds more than {MOST_BYTES >> 30} GiB; no published network does")
        # Macs put files ._NAME beside others.
        if parts and _is_wanted(parts[-1], wanted) and not parts[-1].startswith("._"):
            with open_member() as source, open(folder / parts[-1], "xb") as target:
                shutil.copyfileobj(source, target)
            found = True
    return found


def _members(path: pathlib.Path) -> Iterator[tuple[str, int, bool, Callable[[], BinaryIO]]]:
    """Name, size, whether it is a plain file or a folder, and a function that opens it, of each member."""
    if tarfile.is_tarfile(path):
        with tarfile.open(path) as archive:
            for member in archive:
                is_plain = member.isfile() or member.isdir()
                yield member.name, member.size, is_plain, functools.partial(archive.extractfile, member)
    else:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                is_link = stat.S_ISLNK(member.external_attr >> 16)
                yield member.filename, member.file_size, not is_link, functools.partial(archive.open, member)


def _is_wanted(name: str, wanted: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in wanted)
