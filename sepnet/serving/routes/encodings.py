"""Compression of bodies: `Content-Encoding` of requests, and `Accept-Encoding` for answers."""

import zlib

from starlette.datastructures import Headers
from starlette.types import Scope

from sepnet.serving.engine.errors import BAD_REQUEST, UNSUPPORTED, ApiError
from sepnet.serving.engine.options import MIB

GZIP = ("gzip", "x-gzip")
# `zlib` reads and checks the header and the end of gzip.
GZIP_WINDOW = 16 + zlib.MAX_WBITS


class Gunzip:
    """Unpacks gzip, also of several members, as it comes, never more than 1 MiB at a time.

    Attributes:
        has_more: True if data given already is not fully unpacked.
    """

    def __init__(self):
        self._member = zlib.decompressobj(GZIP_WINDOW)
        self._left = b""
        self.has_more = False

    def __call__(self, data: bytes, is_last: bool) -> bytes:
        """Unpacks what follows.

        Args:
            data: the next piece; empty while `has_more`.
            is_last: True if no piece follows.

        Raises:
            ApiError: the data is no gzip, is damaged or breaks off.
        """
        unpacked = bytearray()
        try:
            self._unpack(self._left + data, unpacked)
        except zlib.error as error:
            raise ApiError(BAD_REQUEST, f"the body cannot be unpacked by gzip, as asked for: {error}") from error
        # At its limit, `zlib` may still hold unpacked bytes itself.
        self.has_more = bool(self._left) or len(unpacked) == MIB
        if is_last and not self.has_more and not self._member.eof:
            raise ApiError(BAD_REQUEST, "the body breaks off before the end of its gzip; send all of it")
        return bytes(unpacked)

    def _unpack(self, packed: bytes, unpacked: bytearray) -> None:
        while len(unpacked) < MIB:
            if self._member.eof:
                # Zeros may follow a member as padding: gzip files on tapes have them.
                packed = packed.lstrip(b"\0")
                if not packed:
                    break
                self._member = zlib.decompressobj(GZIP_WINDOW)
            unpacked += self._member.decompress(packed, MIB - len(unpacked))
            packed = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            if not packed:
                break
        self._left = packed


def is_gzip(scope: Scope) -> bool:
    """True if a request's body is packed.

    Raises:
        ApiError: the body is packed by anything but gzip, or more than once.
    """
    named = ",".join(Headers(scope=scope).getlist("content-encoding")).split(",")
    codings = [coding for coding in (name.strip().lower() for name in named) if coding not in ("", "identity")]
    if codings and (len(codings) > 1 or codings[0] not in GZIP):
        raise ApiError(
            UNSUPPORTED,
            f"Content-Encoding is {', '.join(codings)}; expected gzip, or none",
            {"Accept-Encoding": "gzip"},
        )
    return bool(codings)


def with_plain_accept_encoding(scope: Scope) -> Scope:
    """A request whose `Accept-Encoding` is `gzip` or not there; Starlette's middleware knows no quality values."""
    headers = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
    accepted = ",".join(Headers(scope=scope).getlist("accept-encoding"))
    if _quality(accepted, GZIP) > 0:
        headers.append((b"accept-encoding", b"gzip"))
    return {**scope, "headers": headers}


def _quality(accepted: str, codings: tuple[str, ...]) -> float:
    """Returns the quality that an `Accept-Encoding` gives to the best of some codings, 0 (refused) to 1."""
    qualities = {}
    for element in accepted.lower().split(","):
        name, *parameters = (part.strip() for part in element.split(";"))
        weights = [parameter[2:].strip() for parameter in parameters if parameter.startswith("q=")]
        try:
            qualities[name] = float(weights[0]) if weights else 1.0
        except ValueError:
            # A coding whose quality cannot be parsed is taken as refused.
            qualities[name] = 0.0
    named = [qualities[coding] for coding in codings if coding in qualities]
    return max(named, default=qualities.get("*", 0.0))
