"""Options of the server, and the limits that keep one client from using all of it."""

import dataclasses
import pathlib
from collections.abc import Mapping

MIB = 1 << 20
MOST_VERSION_DIGITS = 18


@dataclasses.dataclass(frozen=True)
class ServeOptions:
    """Options of the server.

    Attributes:
        saved_models: folder of `<name>/<version>/`.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        token: token that `Authorization: Bearer` must hold; None asks for none.
        labels: versions by `(name, label)`, as in TensorFlow Serving's `/v1/models/NAME/labels/LABEL`.
        num_versions: number of the newest versions of a model that are served.
        poll_seconds: time between two looks at `saved_models`.
        max_batch: requests that run together at most; 1 switches batching off.
        max_requests: predictions that are inside at once, waiting or running; more get 503.
        max_held_bytes: largest size of their bodies together; more get 503.
        max_predict_bytes: largest body of a prediction.
        max_predict_seconds: longest audio of a prediction, all of its batch together; a model whose blocks and their
            context are longer takes those.
        max_song_bytes: largest file to separate.
        max_song_seconds: longest song to separate.
        max_songs: songs that are inside at once, being sent, waiting, running or being fetched; more get 503.
        songs_at_once: number of these that are separated at the same time.
        stall_seconds: a client that neither sends nor takes anything for so long is cut off.
        min_bytes_per_second: a body must come at least this fast on average.
        drain_seconds: time that running requests have to finish after SIGTERM.
    """

    saved_models: pathlib.Path = pathlib.Path("saved_models")
    host: str = "127.0.0.1"
    port: int = 8501
    token: str | None = None
    labels: Mapping[tuple[str, str], int] = dataclasses.field(default_factory=dict)
    num_versions: int = 1
    poll_seconds: float = 2.0
    max_batch: int = 8
    max_requests: int = 64
    max_held_bytes: int = 256 * MIB
    max_predict_bytes: int = 32 * MIB
    max_predict_seconds: float = 30.0
    max_song_bytes: int = 512 * MIB
    max_song_seconds: float = 30 * 60.0
    max_songs: int = 8
    songs_at_once: int = 2
    stall_seconds: float = 30.0
    min_bytes_per_second: int = 16 * 1024
    drain_seconds: float = 120.0


def folder_prefix(process: int) -> str:
    """The beginning of the names of temporary folders in which a serving process keeps songs."""
    return f"sepnet-songs-of-{process}-"


def parse_version(text: str) -> int:
    """The number of a version, as TensorFlow Serving's API takes it.

    Raises:
        ValueError: the text holds something else than digits, or too many of them for 64 bits.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= MOST_VERSION_DIGITS):
        raise ValueError(f"versions are numbers of up to {MOST_VERSION_DIGITS} digits")
    return int(text)
