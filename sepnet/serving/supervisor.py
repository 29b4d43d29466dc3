"""The parent of the serving process: it holds the port, and starts another process if that one is killed."""

import ctypes
import functools
import multiprocessing
import os
import pathlib
import shutil
import signal
import socket
import sys
import tempfile

from pipelines.errors import UserError
from sepnet.serving.engine.options import ServeOptions, folder_prefix


def supervise(options: ServeOptions) -> int:
    """Serves until SIGTERM or SIGINT.

    Whatever kills the serving process, memory that runs out or a fault in a library, connections wait in the queue of
    the port until its successor answers them.

    Returns:
        The status to exit with.

    Raises:
        UserError: the port cannot be had.
    """
    listener = _listen(options)
    host, port = listener.getsockname()[:2]
    print(f"http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
    spawn = multiprocessing.get_context("spawn")
    stopping = False
    process = None

    def stop(*_) -> None:
        nonlocal stopping
        stopping = True
        if process is not None and process.is_alive():
            # A terminal and systemd signal parent and child alike: a second signal changes nothing.
            os.kill(process.pid, signal.SIGTERM)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    while True:
        # Without a lock, which a process that is killed would hold for ever.
        is_ready = spawn.RawValue(ctypes.c_bool, False)
        process = spawn.Process(target=_work, args=(options, listener, is_ready), name="serving")
        process.start()
        if stopping:
            stop()
        process.join()
        _remove_songs_of(process.pid)
        if stopping or process.exitcode == 0:
            return 0
        ended = f"the serving process ended with {process.exitcode}"
        if process.exitcode > 0 and not is_ready.value:
            # Nor could another.
            print(f"{ended} before it could serve; giving up", file=sys.stderr, flush=True)
            return 1
        print(f"{ended}; starting another", file=sys.stderr, flush=True)


def _remove_songs_of(process: int) -> None:
    """Removes what a process that was killed has left of the songs in it."""
    for folder in pathlib.Path(tempfile.gettempdir()).glob(f"{folder_prefix(process)}*"):
        shutil.rmtree(folder, ignore_errors=True)


def _listen(options: ServeOptions) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        return socket.create_server((options.host, options.port), family=family, backlog=2048)
    except (OSError, ValueError) as error:
        # A name that cannot be one in the internet at all is a `ValueError`.
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"cannot listen on {options.host} port {options.port}: {reason}; choose others by --host and --port"
        ) from error


def _work(options: ServeOptions, listener: socket.socket, is_ready: ctypes.c_bool) -> None:
    from sepnet.serving.server import work

    work(options, listener, functools.partial(setattr, is_ready, "value", True))
