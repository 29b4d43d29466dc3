"""Chained Ogg files, such as recordings of web radio: one after the other, each link is a file of its own."""

import io
import re
from collections.abc import Iterator
from typing import BinaryIO

PAGE = b"OggS"
# Bytes read at a time; a page has at most 65,307.
READ_BYTES = 1 << 16
# The flag of a page that begins a stream, and where the flags stand.
FIRST_PAGE, FLAGS = 2, 5
# Offset in a page of the number of samples up to its end.
POSITION = 6
VORBIS = b"\x01vorbis"
# Headers and the longest page.
SHORT_BYTES = 2 * READ_BYTES


class OggLink:
    """One link of a chain, as a file that can only be read: it ends where the next link begins."""

    def __init__(self, first: bytes, pieces: Iterator[bytes]):
        self._buffer, self._pieces = first, pieces
        # Streams that run side by side begin with one page each, before all others.
        self._is_beginning = True
        self.has_ended = False
        self.successor = b""

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end of the link."""
        while not self._buffer and not self.has_ended:
            piece = next(self._pieces, b"")
            begins_stream = piece.startswith(PAGE) and bool(piece[FLAGS : FLAGS + 1] and piece[FLAGS] & FIRST_PAGE)
            if not piece or (begins_stream and not self._is_beginning):
                self.has_ended, self.successor = True, piece
            else:
                self._is_beginning &= begins_stream
                self._buffer = piece
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def put_back(self, data: bytes) -> None:
        """Lets `data`, which was read, be read again."""
        self._buffer = data + self._buffer


def ogg_links(file: BinaryIO) -> Iterator[tuple[BinaryIO, int | None]]:
    """Yields the links of a file or pipe, from where it stands, in order; each is read up before the next.

    Yields:
        A file for each link; and of Vorbis that may lie on one page, of which FFmpeg does not find the end, the number
        of samples, else None.
    """
    pieces = _pieces(file)
    first = next(pieces, b"")
    while first:
        link = OggLink(first, pieces)
        beginning = b""
        while len(beginning) < SHORT_BYTES and (data := link.read(SHORT_BYTES)):
            beginning += data
        if link.has_ended:
            # FFmpeg knows more of a short file that it can seek in.
            yield io.BytesIO(beginning), _last_position(beginning)
        else:
            link.put_back(beginning)
            yield link, None
        while link.read(READ_BYTES):
            pass
        first = link.successor


def _last_position(link: bytes) -> int | None:
    """Reads the number of Vorbis samples since the stream began from the last page of a link."""
    if VORBIS not in link[:READ_BYTES]:
        return None
    place = link.rfind(PAGE) + POSITION
    position = int.from_bytes(link[place : place + 8], "little", signed=True)
    return position if position > 0 else None


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    """Yields the bytes of a file in pieces that begin where pages do; what is no page is passed on as it is."""
    rest = b""
    # A pipe gives what it has.
    while data := file.read1(READ_BYTES):
        *whole, rest = re.split(rb"(?=OggS)", rest + data)
        yield from filter(None, whole)
        if len(rest) > 2 * READ_BYTES:
            # No page is so long; the mark of the next one may have come in part.
            yield rest[: 1 - len(PAGE)]
            rest = rest[1 - len(PAGE) :]
    if rest:
        yield rest
