"""A song with a caption, and where its audio lies."""

import contextlib
import dataclasses
import pathlib
import tempfile
from collections.abc import Iterator

from pipelines.errors import UserError
from pipelines.storage import is_local, open_place, reaching

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
            UserError: the song cannot be read. That of a temporary copy which cannot be written is an `OSError`.
        """
        system, path = open_place(self.address)
        if is_local(system) and self.num_bytes is None:
            yield pathlib.Path(path)
            return
        with tempfile.TemporaryDirectory(prefix="sepnet-song-") as folder:
            copy = pathlib.Path(folder) / f"song{self.suffix}"
            with contextlib.ExitStack() as stack:
                file = stack.enter_context(copy.open("wb"))
                with reaching(self.address):
                    # Without a cache: it would fetch more than is asked for.
                    source = stack.enter_context(system.open(path, "rb", cache_type="none"))
                    if self.offset:
                        source.seek(self.offset)
                while chunk := self._read(source, file.tell()):
                    file.write(chunk)
            yield copy

    def _read(self, source, num_read: int) -> bytes:
        wanted = CHUNK_BYTES if self.num_bytes is None else min(CHUNK_BYTES, self.num_bytes - num_read)
        with reaching(self.address):
            chunk = source.read(wanted) if wanted else b""
        if wanted and not chunk and self.num_bytes is not None:
            raise UserError(f"{self.address} ends before the audio of {self.id} does; copy the file once more")
        return chunk
