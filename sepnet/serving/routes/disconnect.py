"""Detects that a client has gone away."""

from starlette.types import Receive


async def disconnected(receive: Receive) -> None:
    """Waits until the client has gone away; its body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass
