"""Middleware before every route: tokens, limits on bodies and on the number of requests, time, and the counters."""

import asyncio
import hmac
import re
import time

import anyio.to_thread
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sepnet.serving.engine.errors import TIMEOUT, TOO_LARGE, ApiError, error_response, unavailable
from sepnet.serving.engine.gate import PREDICT, SONG, Gate
from sepnet.serving.routes.encodings import Gunzip, is_gzip, with_plain_accept_encoding

# Paths that a load balancer asks for without a token, also while the server is shutting down.
OPEN_ROUTES = ("/healthz", "/readyz")
# A line feed may stand anywhere in the path of a request, and the routes' own patterns let one stand at the end.
PREDICT_PATH = re.compile(r"/v1/models/.*:predict\n?", re.DOTALL)
SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    # The page can reach this server alone, whatever it is made to show.
    (
        b"content-security-policy",
        b"default-src 'self'; media-src 'self' blob:; img-src 'self' blob: data:; object-src 'none'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
]


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, gate: Gate):
        self._app, self._gate = app, gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, gate = time.monotonic(), self._gate
        kind = _kind(scope)
        status = 499

        async def send_counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *SECURITY_HEADERS]
            await send(message)

        gate.inside += 1
        gate.metrics.inside.inc()
        try:
            await self._answer(scope, receive, send_counted, kind)
        finally:
            gate.inside -= 1
            gate.metrics.inside.dec()
            # By kind and not by path: a client cannot fill the memory with made-up routes.
            route = kind or "other"
            gate.metrics.requests.labels(route, str(status)).inc()
            gate.metrics.seconds.labels(route).observe(time.monotonic() - begin)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, kind: str | None) -> None:
        gate, entered, body = self._gate, False, None
        try:
            self._check(scope, kind)
            if kind:
                body = _Body(receive, gate, kind, is_gzip(scope))
                gate.enter(kind)
                entered = True
                receive = body
            # HEAD is answered like GET; the HTTP protocol class leaves the body out.
            method = "GET" if scope["method"] == "HEAD" else scope["method"]
            await self._app(with_plain_accept_encoding({**scope, "method": method}), receive, send)
        except ApiError as error:
            await error_response(error)(scope, receive, send)
        finally:
            if entered:
                gate.leave(kind, body.held_bytes)

    def _check(self, scope: Scope, kind: str | None) -> None:
        options, headers = self._gate.options, Headers(scope=scope)
        if scope["path"] in OPEN_ROUTES:
            return
        if self._gate.is_draining:
            raise unavailable("the server is shutting down", 5)
        if options.token is not None and not _is_page(scope):
            given = headers.get("authorization", "").encode("latin-1")
            if not hmac.compare_digest(given, f"Bearer {options.token}".encode()):
                raise ApiError(401, "expected `Authorization: Bearer TOKEN`", {"WWW-Authenticate": "Bearer"})
        origin, host = headers.get("origin"), headers.get("host")
        if origin and origin.partition("://")[2] != host:
            # Any page of the internet could otherwise let its visitors' browsers work here.
            raise ApiError(
                403,
                f"requests from pages of {origin} are not answered, for this is {host}; "
                "a proxy has to hand on the Host that its visitors ask for",
            )
        length = headers.get("content-length", "")
        if kind and length.isdigit() and int(length) > self._gate.most_bytes[kind]:
            raise ApiError(TOO_LARGE, f"the body has {length} bytes; expected at most {self._gate.most_bytes[kind]}")


class _Body:
    """Hands a body on, unpacked, and stops one that is too large, too slow or one too many."""

    def __init__(self, receive: Receive, gate: Gate, kind: str, is_packed: bool):
        self._receive, self._gate, self._kind = receive, gate, kind
        self._begin = time.monotonic()
        self._unpack = Gunzip() if is_packed else None
        self._num_received = self._num_bytes = 0
        self._has_come = self._is_complete = False
        self.held_bytes = 0

    async def __call__(self) -> Message:
        if self._is_complete:
            # The only message that can follow is that the client has gone away.
            return await self._receive()
        most_bytes, data = self._gate.most_bytes[self._kind], b""
        if not (self._unpack and self._unpack.has_more):
            message = await self._next()
            if message["type"] == "http.disconnect":
                return message
            data = message.get("body", b"")
            self._num_received += len(data)
            self._has_come = not message.get("more_body", False)
        if self._unpack:
            # In pieces, so that a body that unpacks to far too much is stopped before it fills the memory.
            data = await anyio.to_thread.run_sync(self._unpack, data, self._has_come)
        self._is_complete = self._has_come and not (self._unpack and self._unpack.has_more)
        self._num_bytes += len(data)
        if max(self._num_bytes, self._num_received) > most_bytes:
            unpacked = ", unpacked" if self._unpack else ""
            raise ApiError(TOO_LARGE, f"the body has more than {most_bytes} bytes{unpacked}")
        if self._kind == PREDICT:
            self.held_bytes += len(data)
            self._gate.hold(len(data))
        return {"type": "http.request", "body": data, "more_body": not self._is_complete}

    async def _next(self) -> Message:
        options = self._gate.options
        deadline = self._begin + options.stall_seconds + self._num_received / options.min_bytes_per_second
        left = min(deadline - time.monotonic(), options.stall_seconds)
        try:
            return await asyncio.wait_for(self._receive(), max(left, 0))
        except TimeoutError as error:
            raise ApiError(TIMEOUT, f"the body comes too slowly: {self._num_received} bytes until now") from error


def _kind(scope: Scope) -> str | None:
    """Returns the kind of a request with a large body, whose limits apply; None for others."""
    if scope["method"] != "POST":
        return None
    if scope["path"].removesuffix("\n") == "/separate":
        return SONG
    return PREDICT if PREDICT_PATH.fullmatch(scope["path"]) else None


def _is_page(scope: Scope) -> bool:
    """The page itself holds no secrets; what it asks for does."""
    return scope["method"] in ("GET", "HEAD") and (scope["path"] == "/" or scope["path"].startswith("/static/"))
