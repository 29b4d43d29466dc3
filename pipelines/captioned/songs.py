"""A song with a caption, and where its audio lies."""

import contextlib
import dataclasses
import pathlib
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipelines.errors import RunError, UserError
from pipelines.storage import is_local, open_place, reaching

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

CHUNK_BYTES = 1 << 23


@dataclasses.dataclass(frozen=True)
class CaptionedSong:
    """A song of a collection.

    Attributes:
        id: its name, with `/` between folders and without suffix; no other song of the collection has it.
        caption: empty if there is none.
        address: of the file, as `pipelines.storage.open_place` takes it.
        suffix: of the audio's name, with its dot.
        offset: bytes before the audio, where the file is a tar that holds it; else 0.
        num_bytes: of the audio in that tar; None where the whole file is the audio.
    """

    id: str
    caption: str
    address: str
    suffix: str
    offset: int = 0
    num_bytes: int | None = None

    @contextlib.contextmanager
    def open_local(self) -> Iterator[pathlib.Path]:
        """Gives a path on this machine: the file itself, or a copy that is gone afterwards.

        Raises:
            UserError: the song cannot be read.
            RunError: nor could another one: there is no connection, or no room for a temporary copy.
        """
        system, path = open_place(self.address)
        if is_local(system) and self.num_bytes is None:
            yield pathlib.Path(path)
            return
        with contextlib.ExitStack() as stack:
            try:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="sepnet-song-"))
                copy = pathlib.Path(folder) / f"song{self.suffix}"
                self._copy(system, path, copy)
            except OSError as error:
                raise RunError(
                    f"cannot write a temporary copy of {self.address}: {error.strerror or error}; make room, or set "
                    "TMPDIR to another folder"
                ) from error
            yield copy

    def _copy(self, system: "AbstractFileSystem", path: str, copy: pathlib.Path) -> None:
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(copy.open("wb"))
            with reaching(self.address):
                # Without a cache: it would fetch more than is asked for.
                source = stack.enter_context(system.open(path, "rb", cache_type="none"))
                if self.offset:
                    source.seek(self.offset)
            while chunk := self._read(source, file.tell()):
                file.write(chunk)

    def _read(self, source, num_read: int) -> bytes:
        wanted = CHUNK_BYTES if self.num_bytes is None else min(CHUNK_BYTES, self.num_bytes - num_read)
        with reaching(self.address):
            chunk = source.read(wanted) if wanted else b""
        if wanted and not chunk and self.num_bytes is not None:
            raise UserError(f"{self.address} ends before the audio of {self.id} does; copy the file once more")
        return chunk
