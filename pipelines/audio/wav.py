"""The chunks of WAV files: where the samples are, and how many the header promises."""

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

from pipelines.errors import UserError

# Programs that write into a pipe leave sizes like 0x7FFFFFFF in the header; 0 is what a crash leaves.
UNKNOWN_BYTES = 0x7FFF0000
# Of a copy; no sound card is faster.
MOST_HZ = 768_000


def wav_data_offset(path: str | bytes | os.PathLike) -> int:
    """Returns where the samples of a WAV file begin, in bytes.

    Raises:
        UserError: the file has no samples.
    """
    with open(path, "rb") as file:
        for name, offset, _ in _chunks(file):
            if name == b"data":
                return offset
    raise UserError(f"{os.fsdecode(path)} has no samples; expected a WAV file")


def is_plain_wav(path: str | bytes | os.PathLike) -> bool:
    """Says if tensorflow-io reads a WAV file: chunks have even sizes and end within it, and no LIST comes first."""
    with open(path, "rb") as file:
        chunks = list(_chunks(file))
    names = [name for name, _, _ in chunks]
    file_bytes = os.stat(path).st_size
    ordered = b"fmt " in names and b"LIST" not in names[: names.index(b"fmt ")]
    return ordered and all(size % 2 == 0 and offset + size <= file_bytes for _, offset, size in chunks)


def promised_share(file: BinaryIO) -> float:
    """Returns how many times as long as it is a WAV would be by its header: 1 for a whole one, and if that is unknown.

    The place in the file is kept.
    """
    place = file.tell()
    file_bytes = file.seek(0, os.SEEK_END)
    sizes = [(offset, size) for name, offset, size in _chunks(file) if name == b"data"]
    file.seek(place)
    for offset, size in sizes:
        if 0 < size < UNKNOWN_BYTES and offset < file_bytes < offset + size:
            return size / (file_bytes - offset)
    return 1.0


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yields the name of each chunk of a WAV file, where its content begins, and the size of that, in bytes."""
    file.seek(12)
    while len(header := file.read(8)) == 8:
        name, size = struct.unpack("<4sI", header)
        offset = file.tell()
        yield name, offset, size
        # Chunks are padded to an even length.
        file.seek(offset + size + size % 2)
