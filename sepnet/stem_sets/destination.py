"""The folder that a stem set is written to, on this machine or elsewhere: whole files, each under its name."""

import contextlib
import dataclasses
import pathlib
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

from pipelines.files import folder_lock, working_folder
from pipelines.storage import address_of, is_local, open_place, reaching


@dataclasses.dataclass(frozen=True)
class Destination:
    """A folder.

    Attributes:
        address: as `pipelines.storage.open_place` takes it.
    """

    address: str

    def address_of(self, name: str) -> str:
        """Returns the address of a file in it."""
        system, root = open_place(self.address)
        return address_of(system, f"{root.rstrip('/')}/{name}")

    @contextlib.contextmanager
    def working_folder(self) -> Iterator[pathlib.Path]:
        """Gives a folder on this machine for what is not finished; those of runs that were killed are removed."""
        system, root = open_place(self.address)
        with working_folder(pathlib.Path(root if is_local(system) else tempfile.gettempdir())) as folder:
            yield folder

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps others on the same disk out of a block. Elsewhere there are no locks."""
        system, root = open_place(self.address)
        with folder_lock(pathlib.Path(root)) if is_local(system) else contextlib.nullcontext():
            yield

    def exists(self, name: str) -> bool:
        """True if there is a file of this name."""
        system, path = open_place(self.address_of(name))
        with reaching(self.address):
            return system.isfile(path)

    def names(self, folder: str = "") -> list[str]:
        """The names of what lies in it, or in a folder of it, but for hidden files."""
        system, path = open_place(self.address_of(folder))
        with reaching(self.address):
            try:
                paths = system.ls(path, detail=False)
            except FileNotFoundError:
                return []
        names = (path.rstrip("/").rpartition("/")[2] for path in paths)
        return sorted(name for name in names if not name.startswith("."))

    def read(self, name: str) -> bytes | None:
        """Reads a small file; None if there is none."""
        system, path = open_place(self.address_of(name))
        with reaching(self.address):
            try:
                return system.cat_file(path)
            except FileNotFoundError:
                return None

    def remove(self, name: str) -> None:
        """Removes a file, if there is one."""
        system, path = open_place(self.address_of(name))
        with reaching(self.address), contextlib.suppress(FileNotFoundError):
            system.rm_file(path)

    @contextlib.contextmanager
    def open(self, name: str, block_bytes: int | None = None) -> Iterator[BinaryIO]:
        """Opens a file for reading; of one elsewhere so much more is read each time than is asked for, or as usual."""
        system, path = open_place(self.address_of(name))
        with reaching(self.address), system.open(path, "rb", block_size=block_bytes) as file:
            yield file

    def put(self, file: pathlib.Path, name: str) -> None:
        """Gives a finished file of the working folder its place, whole; one that stands there is replaced."""
        system, path = open_place(self.address_of(name))
        if is_local(system):
            place = pathlib.Path(path)
            place.parent.mkdir(parents=True, exist_ok=True)
            file.replace(place)
            return
        with reaching(self.address):
            system.put_file(str(file), path)

    def put_first(self, file: pathlib.Path, name: str) -> None:
        """Puts a small file, unless there is one of that name. Hold the lock meanwhile."""
        if self.exists(name):
            return
        system, path = open_place(self.address_of(name))
        if is_local(system):
            self.put(file, name)
            return
        # Where stores can, they tell whoever comes second.
        with reaching(self.address), contextlib.suppress(FileExistsError):
            system.pipe_file(path, file.read_bytes(), mode="create")
