"""Recordings out of Debian's packages: by apt, or from a folder of packages that were downloaded."""

import argparse
import dataclasses
import hashlib
import io
import json
import pathlib
import re
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pipelines.cache import cache_path
from pipelines.errors import UserError, one_line, user_path
from pipelines.files import folder_lock, whole_file, working_folder
from pipelines.progress import progress_bar

LICENCE_FILE = "LICENCE.txt"
# An archive inside of the archive, as games have it.
ZIP_SUFFIX = ".pk3"


@dataclasses.dataclass(frozen=True, eq=False)
class Package:
    """A package of recordings.

    Attributes:
        licence: of the recordings, in short.
        versions: of all releases with the very same recordings, each with its `bytes` and `sha256`.
        parts: what is taken of it, as its table says.
    """

    name: str
    licence: str
    versions: Mapping[str, Mapping[str, Any]]
    parts: Any

    def __str__(self) -> str:
        return f"{self.name} {' or '.join(self.versions)}"

    @property
    def megabytes(self) -> float:
        """Size of the download."""
        return next(iter(self.versions.values()))["bytes"] / 1e6

    @property
    def licence_path(self) -> str:
        """Path of the whole text of the licence in the package."""
        return f"usr/share/doc/{self.name}/copyright"

    def files_in(self, folder: pathlib.Path) -> dict[pathlib.Path, str]:
        """Files of its versions in a folder, with the SHA-256 of each. Mirrors leave an epoch ("4:") out of names."""
        names = {
            folder / f"{self.name}_{text}_all.deb": release["sha256"]
            for version, release in self.versions.items()
            for text in (version.replace(":", "%3a"), version.partition(":")[2] or version)
        }
        return {path: sha256 for path, sha256 in names.items() if path.is_file()}


def add_packages(parser: argparse.ArgumentParser) -> None:
    """Adds the option that names a folder of packages, for `find_packages`."""
    parser.add_argument(
        "--packages", type=user_path, metavar="FOLDER", help="packages that were downloaded [apt brings them]"
    )


def read_table(path: pathlib.Path) -> list[Package]:
    """The packages of a table in JSON."""
    return [Package(name, **entry) for name, entry in json.loads(path.read_text()).items()]


def find_packages(packages: Sequence[Package], folder: pathlib.Path | None) -> dict[Package, pathlib.Path]:
    """Finds the files of packages, and checks that they are the ones that the table means.

    Args:
        packages: those that are needed.
        folder: of packages that were downloaded; None brings them by apt, once, into the user's cache folder.

    Raises:
        UserError: packages are missing and apt does not bring them, or a file is another one.
    """
    place = folder or cache_path() / "packages"
    missing = [package for package in packages if not package.files_in(place)]
    if missing and folder:
        raise _missing(f"{folder} lacks packages", missing)
    if missing:
        _download(missing, place)
    found = {}
    for package in packages:
        [(found[package], sha256), *_] = package.files_in(place).items()
        with open(found[package], "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise UserError(
                    f"{found[package]} is not the package that was published (SHA-256 differs); remove it, and start "
                    "again or put a good copy in its place"
                )
    return found


def _download(packages: Sequence[Package], place: pathlib.Path) -> None:
    if not (shutil.which("apt-get") and shutil.which("apt-cache")):
        raise _missing("there is no apt on this machine", packages)
    versions = {package: _offered(package) for package in packages}
    if unknown := [package for package, version in versions.items() if not version]:
        raise _missing("apt offers none of these versions (`apt-get update` may help)", unknown)
    total = sum(package.megabytes for package in packages)
    with (
        folder_lock(place),
        working_folder(place) as folder,
        progress_bar("bringing packages", total=total, unit="MB") as advance,
    ):
        for package, version in versions.items():
            command = ["apt-get", "download", f"{package.name}={version}"]
            finished = subprocess.run(command, cwd=folder, capture_output=True, text=True)
            if finished.returncode:
                reason = one_line((finished.stderr.strip().splitlines() or ["no reason given"])[-1])
                raise _missing(f"`{' '.join(command)}` fails ({reason})", packages)
            for path in package.files_in(folder):
                path.rename(place / path.name)
            advance(package.megabytes, package.name)


def _offered(package: Package) -> str | None:
    """The version that apt has of those in the table."""
    shown = subprocess.run(["apt-cache", "show", package.name], capture_output=True, text=True).stdout
    offered = re.findall(r"^Version: (\S+)$", shown, re.MULTILINE)
    return next((version for version in package.versions if version in offered), None)


def _missing(reason: str, packages: Sequence[Package]) -> UserError:
    return UserError(
        f"{reason}: download {', '.join(map(str, packages))} from packages.debian.org into a folder, and give it with "
        "--packages FOLDER"
    )


def read_files(path: pathlib.Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Yields the names, as "usr/share/...", and contents of files in a package; those in a `.pk3` lie below its name.

    Args:
        path: of the package.
        wanted: says by its name if a file is to be read.

    Raises:
        UserError: the file is no package, or one of its names leads elsewhere.
    """
    with open(path, "rb") as file:
        _seek_data(file, path)
        with tarfile.open(fileobj=file, mode="r|*") as archive:
            for member in archive:
                name = _inner_name(member.name, path)
                is_zip = name.endswith(ZIP_SUFFIX)
                if member.isdir() or not (is_zip or wanted(name)):
                    continue
                if not member.isreg():
                    raise UserError(f"{path} holds {name!r}, which is no plain file; it is not unpacked")
                content = archive.extractfile(member).read()
                if not is_zip:
                    yield name, content
                    continue
                with zipfile.ZipFile(io.BytesIO(content)) as inner:
                    names = {f"{name}/{_inner_name(entry, path)}": entry for entry in inner.namelist()}
                    yield from ((place, inner.read(entry)) for place, entry in names.items() if wanted(place))


def _inner_name(text: str, path: pathlib.Path) -> str:
    name = pathlib.PurePosixPath(text)
    if name.is_absolute() or ".." in name.parts:
        raise UserError(f"{path} holds {text!r}, which leads out of it; it is not unpacked")
    return str(name)


def _seek_data(file: io.BufferedReader, path: pathlib.Path) -> None:
    """Goes to the files of a package, which is an `ar` archive: a line, then members behind 60 bytes of text each."""
    if file.read(8) == b"!<arch>\n":
        while len(header := file.read(60)) == 60:
            if header.startswith(b"data.tar"):
                return
            size = int(header[48:58])
            file.seek(size + size % 2, io.SEEK_CUR)
    raise UserError(f"{path} holds no data.tar; expected a package of Debian")


def write_note(path: pathlib.Path, text: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Writes a text with a table in Markdown, unless it is there."""
    lines = [headings, ["---"] * len(headings), *rows]
    note = "\n".join([text, "", *(f"| {' | '.join(line)} |" for line in lines), ""])
    if not path.exists() or path.read_text() != note:
        with whole_file(path) as temporary:
            temporary.write_text(note)
