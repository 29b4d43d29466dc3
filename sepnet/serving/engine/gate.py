"""Counts the requests inside the server, and refuses those beyond its limits."""

from sepnet.serving.engine.errors import unavailable
from sepnet.serving.engine.metrics import Metrics
from sepnet.serving.engine.options import ServeOptions
from sepnet.serving.engine.runner import Runner

# Kinds of requests with a body.
PREDICT, SONG = "predict", "separate"


class Gate:
    """Counts requests that are inside and the memory of their bodies, and refuses more than there is room for.

    Attributes:
        is_draining: True while the server shuts down: requests inside finish, others get 503.
        inside: number of requests that are being answered.
    """

    def __init__(self, options: ServeOptions, metrics: Metrics, runner: Runner):
        self.options, self.metrics, self.runner = options, metrics, runner
        self.is_draining = False
        self.inside = 0
        self._held_bytes = 0
        self._requests = {PREDICT: 0, SONG: 0}
        self._most_requests = {PREDICT: options.max_requests, SONG: options.max_songs}
        self.most_bytes = {PREDICT: options.max_predict_bytes, SONG: options.max_song_bytes}

    def enter(self, kind: str) -> None:
        """Takes a place for a request with a body.

        Raises:
            ApiError: all places are taken.
        """
        if self._requests[kind] >= self._most_requests[kind]:
            raise unavailable(f"{self._most_requests[kind]} requests are inside already", self.runner.wait_seconds())
        self._requests[kind] += 1
        self.metrics.songs.set(self._requests[SONG])

    def leave(self, kind: str, held_bytes: int) -> None:
        """Gives the place back, and the memory of the body."""
        self._requests[kind] -= 1
        self._held_bytes -= held_bytes
        self.metrics.songs.set(self._requests[SONG])

    def hold(self, num_bytes: int) -> None:
        """Counts bytes of a body that is kept in memory; the caller gives them back when it leaves.

        Raises:
            ApiError: all bodies together are too large.
        """
        self._held_bytes += num_bytes
        if self._held_bytes > self.options.max_held_bytes:
            raise unavailable("the requests inside take too much memory", self.runner.wait_seconds())
