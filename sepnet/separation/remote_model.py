"""A model behind a server, sepnet's own or TensorFlow Serving, that runs like one on this machine."""

import base64
import contextlib
import gzip
import http.client
import json
import os
import re
import socket
import ssl
import time
import weakref
import zlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np

from pipelines.errors import UserError, one_line
from sepnet.export.contract import check_contract
from sepnet.export.signatures import BYTES_SUFFIX, CONTRACT, TENSOR
from sepnet.export.tensor_proto import read_tensor, write_tensor

TOKEN_VARIABLE = "SEPNET_TOKEN"
TIMEOUT_SECONDS = 120
# A server that is busy, or being started anew, is asked again.
MOST_TRIES = 8
LONGEST_WAIT_SECONDS = 30.0
LONGEST_QUOTE = 200
CONNECTIONS = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}


class RemoteModel:
    """A model on a server; `sepnet.separation.separator.Separator` runs it like a local one.

    `Separator(RemoteModel(url))` cuts a song into blocks with their context here, so that no message grows with the
    song, and gives what the model would give on this machine. Blocks travel as exact float32, in base64.

    Attributes:
        name: of the model.
        contract: what the server's model says of itself.

    Args:
        url: `http://host:port` or `https://host`, perhaps with a path before `/v1`.
        name: of the model; None takes the only one of a sepnet server.
        token: bearer token; by default what the variable SEPNET_TOKEN says.

    Raises:
        UserError: the address or the token cannot be one, the server cannot be reached, refuses or answers something
            else, or the model is not there or an older export.

    >>> import numpy as np
    >>> from sepnet import Separator
    >>> separator = Separator(RemoteModel(url, "unet_1d"))
    >>> stems = separator(np.zeros((8000, 2), np.float32), sample_rate=8000)
    >>> list(stems) == separator.sources
    True
    """

    def __init__(self, url: str, name: str | None = None, token: str | None = None):
        self._url, kind, host, port, self._path = _address(url)
        token = bearer_token(token)
        if name == "":
            raise UserError("the model's name is empty; name one of the server's by --model, or leave that out")
        self._connection = kind(host, port, timeout=TIMEOUT_SECONDS)
        weakref.finalize(self, self._connection.close)
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self.name = self._only_model() if name is None else name
        # One version for the whole song, though a new one may come meanwhile.
        self._model = f"{self._model_path()}/versions/{self._newest_version()}"
        try:
            text = self._predict(CONTRACT, {"query": [""]}, [CONTRACT])[CONTRACT]
        except UserError as error:
            if "signature" not in str(error):
                raise
            raise UserError(f"{error}; a model of an older export has to be exported again") from error
        with _understanding(self._url):
            contract = json.loads(text)
        self.contract: dict[str, Any] = check_contract(contract, f"{self.name} on {self._url}")

    def __call__(self, mixture: np.ndarray) -> dict[str, np.ndarray]:
        """Separates a batch, as `sepnet.separation.separator.Model` says.

        Raises:
            UserError: the server refuses, has gone away, does not serve this version any more, or answers something
                else than stems.
        """
        # One at a time, so that a message does not grow with the channels of a song.
        rows = [self._separate(row) for row in mixture]
        return {source: np.stack([row[source] for row in rows]) for source in self.contract["sources"]}

    def _separate(self, mixture: np.ndarray) -> dict[str, np.ndarray]:
        message = {"b64": base64.b64encode(write_tensor(mixture)).decode()}
        outputs = {source: f"{source}{BYTES_SUFFIX}" for source in self.contract["sources"]}
        answer = self._predict(TENSOR, {f"mixture{BYTES_SUFFIX}": [message]}, list(outputs.values()))
        with _understanding(self._url):
            return {
                source: read_tensor(base64.b64decode(answer[name]["b64"]), mixture.shape)
                for source, name in outputs.items()
            }

    def _predict(self, signature: str, inputs: dict[str, list], outputs: list[str]) -> dict[str, Any]:
        """Asks for a batch of one, and returns that one of each output."""
        request = json.dumps({"signature_name": signature, "inputs": inputs}).encode()
        answer = self._ask("POST", f"{self._model}:predict", request)
        with _understanding(self._url):
            answer = answer["outputs"]
            # The only output of a signature comes without its name.
            named = answer if isinstance(answer, dict) else {outputs[0]: answer}
            return {name: named[name][0] for name in outputs}

    def _only_model(self) -> str:
        try:
            models = self._ask("GET", "/models")
        except UserError as error:
            raise UserError(f"{error}; name the model by --model if this is a TensorFlow Serving") from error
        with _understanding(self._url):
            names = [str(model["name"]) for model in models]
        if len(names) != 1:
            raise UserError(f"{self._url} has these models: {', '.join(names) or 'none'}; name one by --model")
        return names[0]

    def _model_path(self) -> str:
        # No server has a model whose name is no text.
        return f"/v1/models/{quote(self.name, safe='', errors='replace')}"

    def _newest_version(self) -> int:
        answer = self._ask("GET", self._model_path())
        with _understanding(self._url):
            statuses = answer["model_version_status"]
            available = [int(status["version"]) for status in statuses if status["state"] == "AVAILABLE"]
        if not available:
            raise UserError(f"{self._url} has no version of {self.name} ready; its log says why")
        return max(available)

    def _ask(self, method: str, path: str, body: bytes | None = None) -> Any:
        """Sends a request, again if the server is busy or starts anew, and returns what it answers."""
        for number in range(MOST_TRIES):
            status, headers, content = self._send(method, path, body, is_last=number == MOST_TRIES - 1)
            if status not in (0, 503) or number == MOST_TRIES - 1:
                break
            time.sleep(_wait_seconds(headers.get("Retry-After", ""), number))
        if 300 <= status < 400:
            target = headers.get("Location", "elsewhere")
            raise UserError(
                one_line(f"{self._url}{path} is redirected to {target}; name the server that answers itself")
            )
        try:
            answer = json.loads(_unpacked(headers, content))
        except (ValueError, RecursionError) as error:
            named = f"{status} {http.client.responses.get(status, '')}".strip()
            raise UserError(
                f"{self._url}{path} answered {named} with something else than JSON; is this the address of a sepnet "
                "or TensorFlow Serving, and is that running?"
            ) from error
        if status != 200:
            reason = answer.get("error", answer) if isinstance(answer, dict) else answer
            raise UserError(f"{self._url} answered {status}: {one_line(reason)[:LONGEST_QUOTE]}")
        return answer

    def _send(self, method: str, path: str, body: bytes | None, *, is_last: bool):
        """Returns status, headers and content; status 0 where the connection broke."""
        try:
            self._connection.request(method, self._path + path, body, self._headers)
            answer = self._connection.getresponse()
            return answer.status, answer.headers, answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            # Nobody listens there, or nobody answers: that stays as it is, unlike a connection that breaks.
            is_final = isinstance(error, ConnectionRefusedError | TimeoutError | socket.gaierror | ssl.SSLError)
            if is_last or is_final:
                reason = one_line(error)[:LONGEST_QUOTE] or type(error).__name__
                raise UserError(f"cannot reach {self._url}: {reason}; is the server running?") from error
            return 0, {}, b""


def bearer_token(given: str | None = None) -> str | None:
    """The token that a server asks for: the one that was given, or what the variable SEPNET_TOKEN says, if anything.

    Raises:
        UserError: the token is empty, or cannot stand in a header.
    """
    where = "the token" if given is not None else TOKEN_VARIABLE
    token = given if given is not None else os.environ.get(TOKEN_VARIABLE) or None
    if token is not None and not re.fullmatch("[!-~]+", token):
        reason = "is empty" if not token else "holds something else than the letters, digits and signs of ASCII"
        raise UserError(f"{where} {reason}; give one without blanks by --token or {TOKEN_VARIABLE}, or none")
    return token


def _address(url: str) -> tuple[str, type[http.client.HTTPConnection], str, int, str]:
    """Takes an address apart: itself without a slash at its end, the kind of connection, host, port, and the path."""
    expected = "expected one like http://localhost:8501"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        if not host or parts.scheme not in CONNECTIONS or re.search("[^!-~]", url):
            raise ValueError("it needs http:// or https://, a host, and no blanks")
        if parts.username is not None:
            raise ValueError("a user's name cannot stand in it; give a token by --token")
        if "?" in url or "#" in url:
            raise ValueError("it ends with the path before /v1")
        # What is no name in the internet: parts of it that are empty or too long.
        host.encode("idna")
    except ValueError as error:
        raise UserError(f"{url!r} is no address of a server ({error}); {expected}") from error
    kind = CONNECTIONS[parts.scheme]
    # Without a port, `http.client` would look for one behind the last colon of an IPv6 address.
    return url.rstrip("/"), kind, host, port or kind.default_port, parts.path.rstrip("/")


@contextlib.contextmanager
def _understanding(url: str) -> Iterator[None]:
    """Turns what happens where an answer is another than expected into a `UserError`."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise UserError(
            f"{url} answered something else than a server of models does ({one_line(error)[:LONGEST_QUOTE]}); is this "
            "the address of a sepnet or TensorFlow Serving?"
        ) from error


def _unpacked(headers, content: bytes) -> bytes:
    """The content of an answer that was packed though nobody asked for it, as some proxies do.

    Raises:
        ValueError: the gzip is damaged.
    """
    if headers.get("Content-Encoding", "").strip().lower() not in ("gzip", "x-gzip"):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError("it is no gzip") from error


def _wait_seconds(retry_after: str, number: int) -> float:
    """Seconds to wait: those the server asks for, or twice as many each time."""
    is_number = retry_after.isascii() and retry_after.isdigit()
    wanted = float(retry_after) if is_number else 0.1 * 2**number
    return min(wanted, LONGEST_WAIT_SECONDS)
