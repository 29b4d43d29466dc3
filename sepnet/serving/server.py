"""The process that serves: connections that do not block others, and an end that lets running requests finish."""

import copy
import gc
import multiprocessing
import os
import socket
import time
from collections.abc import Callable

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

import sepnet.serving
from sepnet.serving.app import Service, build_service
from sepnet.serving.engine.options import ServeOptions

# Time that a refused client may go on sending before it is cut off, so that it can read the reason.
LINGER_SECONDS = 2.0
MACOS_FILES = 10_240


def patient_protocol(stall_seconds: float) -> type[H11Protocol]:
    """HTTP connections that are closed when for so long nothing is said on them, or nothing is taken from them."""

    class PatientProtocol(H11Protocol):
        """Uvicorn by itself waits for ever for a request's head, and for a client that does not read."""

        _head_timer = _send_timer = None

        def connection_made(self, transport) -> None:
            super().connection_made(transport)
            self._watch_head()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch_head()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.conn.their_state is h11.SEND_BODY:
                self.loop.call_later(LINGER_SECONDS, self.transport.abort)

        def connection_lost(self, exc: Exception | None) -> None:
            for timer in (self._head_timer, self._send_timer):
                if timer:
                    timer.cancel()
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._send_timer = self.loop.call_later(stall_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            if self._send_timer:
                self._send_timer.cancel()
            super().resume_writing()

        def _watch_head(self) -> None:
            is_waiting = self.cycle is None or (self.cycle.response_complete and self.conn.their_state is h11.IDLE)
            if is_waiting and self._head_timer is None:
                self._head_timer = self.loop.call_later(stall_seconds, self.transport.abort)
            elif not is_waiting and self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

    return PatientProtocol


class DrainingServer(uvicorn.Server):
    """On SIGTERM it goes on listening: running requests finish, new ones get 503, and then it ends."""

    def __init__(self, config: uvicorn.Config, service: Service, drain_seconds: float, tell_ready: Callable[[], None]):
        super().__init__(config)
        self._gate, self._drain_seconds, self._tell_ready = service.gate, drain_seconds, tell_ready
        self._drain_until: float | None = None
        # (It may have died while TensorFlow was loaded, and `getppid` be somebody else's by now.)
        parent = multiprocessing.parent_process()
        self._parent = parent.pid if parent else os.getppid()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Called once, before the first request is answered."""
        await super().startup(sockets)
        if self.started:
            self._tell_ready()

    def handle_exit(self, sig: int, frame) -> None:
        """The handler of SIGTERM and SIGINT; the second SIGINT ends at once."""
        if self._drain_until is not None and sig == 2:
            # What it leaves of songs, the supervisor removes.
            os._exit(128 + sig)
        self.drain()

    def drain(self) -> None:
        """Refuses new requests, and ends when none is inside."""
        if self._drain_until is None:
            self._drain_until = time.monotonic() + self._drain_seconds
        self._gate.is_draining = True

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second."""
        if os.getppid() != self._parent:
            # The supervisor died: nothing would restart this process or stop it.
            self.drain()
        is_over = self._drain_until is not None and (not self._gate.inside or time.monotonic() > self._drain_until)
        return await super().on_tick(counter) or is_over


def make_server(options: ServeOptions, tell_ready: Callable[[], None]) -> tuple[DrainingServer, Service]:
    """The server, which says when it is ready, and what it serves; `serve(sockets=[...])` runs it."""
    service = build_service(options)
    log_config = copy.deepcopy(uvicorn.config.LOGGING_CONFIG)
    # This package tells what it loads in the same place as Uvicorn.
    log_config["loggers"][sepnet.serving.__name__] = {"handlers": ["default"], "level": "INFO"}
    config = uvicorn.Config(
        service.app,
        host=options.host,
        port=options.port,
        http=patient_protocol(options.stall_seconds),
        ws="none",
        lifespan="on",
        log_config=log_config,
        log_level="warning",
        backlog=2048,
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    return DrainingServer(config, service, options.drain_seconds, tell_ready), service


def work(options: ServeOptions, listener: socket.socket, tell_ready: Callable[[], None]) -> None:
    """Runs the server in the serving process, and says when it is ready."""
    import tensorflow  # noqa: F401

    # The libraries' objects stay in memory. Python would search them for garbage again and again while it reads a
    # request of a million numbers, and take three times as long.
    gc.freeze()
    raise_limit_of_files()
    server, _ = make_server(options, tell_ready)
    server.run(sockets=[listener])


def raise_limit_of_files() -> None:
    """Lets this process have as many open files as it may.

    A connection is an open file, and many systems allow 1024 of them unless asked for more.
    """
    try:
        import resource
    except ImportError:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS says that there is no limit, and takes no more than this.
    wanted = MACOS_FILES if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
