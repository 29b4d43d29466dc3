"""A model behind a server, sepnet's own or TensorFlow Serving, that runs like one on this machine."""

import base64
import http.client
import json
import os
import socket
import ssl
import time
import weakref
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np

from pipelines.errors import UserError
from sepnet.signatures import BYTES, CONTRACT, TENSOR
from sepnet.tensor_proto import read_tensor, write_tensor

TOKEN_VARIABLE = "SEPNET_TOKEN"
TIMEOUT_SECONDS = 120
# A server that is busy, or being started anew, is asked again.
TRIES = 8
LONGEST_WAIT_SECONDS = 30.0


class RemoteModel:
    """A model on a server; `sepnet.separator.Separator` runs it like a local one.

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
        UserError: the server cannot be reached or refuses, or the model is not there or an older export.
    """

    def __init__(self, url: str, name: str | None = None, token: str | None = None):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"{url!r} is no address of a server; expected one like http://localhost:8501")
        self._url, self._path = url, parts.path.rstrip("/")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname, parts.port, timeout=TIMEOUT_SECONDS)
        weakref.finalize(self, self._connection.close)
        token = token or os.environ.get(TOKEN_VARIABLE)
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self.name = self._only_model() if name is None else name
        # One version for the whole song, though a new one may come meanwhile.
        self._model = f"/v1/models/{quote(self.name, safe='')}/versions/{self._newest_version()}"
        try:
            text = self._predict(CONTRACT, {"query": [""]}, [CONTRACT])[CONTRACT]
        except UserError as error:
            raise UserError(f"{error}; a model of an older export has to be exported again") from error
        self.contract: dict[str, Any] = json.loads(text)

    def __call__(self, mixture: np.ndarray) -> dict[str, np.ndarray]:
        """Separates a batch.

        Args:
            mixture: float32 `[batch, num_samples, num_channels]`, full scale ±1, at the model's rate.

        Returns:
            For each source an array of the same shape.

        Raises:
            UserError: the server refuses, has gone away, or does not serve this version any more.
        """
        # One at a time, so that a message does not grow with the channels of a song.
        rows = [self._separate(row) for row in mixture]
        return {source: np.stack([row[source] for row in rows]) for source in self.contract["sources"]}

    def _separate(self, mixture: np.ndarray) -> dict[str, np.ndarray]:
        message = {"b64": base64.b64encode(write_tensor(mixture)).decode()}
        outputs = {source: f"{source}{BYTES}" for source in self.contract["sources"]}
        answer = self._predict(TENSOR, {f"mixture{BYTES}": [message]}, list(outputs.values()))
        return {
            source: read_tensor(base64.b64decode(answer[name]["b64"]), mixture.shape)
            for source, name in outputs.items()
        }

    def _predict(self, signature: str, inputs: dict[str, list], outputs: list[str]) -> dict[str, Any]:
        """Asks for a batch of one, and returns that one of each output."""
        request = json.dumps({"signature_name": signature, "inputs": inputs}).encode()
        answer = self._ask("POST", f"{self._model}:predict", request)["outputs"]
        # The only output of a signature comes without its name.
        named = answer if isinstance(answer, dict) else {outputs[0]: answer}
        return {name: named[name][0] for name in outputs}

    def _only_model(self) -> str:
        try:
            models = self._ask("GET", "/models")
        except UserError as error:
            raise UserError(f"{error}; name the model by --model if this is a TensorFlow Serving") from error
        if len(models) != 1:
            names = ", ".join(model["name"] for model in models) or "none"
            raise UserError(f"{self._url} has these models: {names}; name one by --model")
        return models[0]["name"]

    def _newest_version(self) -> int:
        statuses = self._ask("GET", f"/v1/models/{quote(self.name, safe='')}")["model_version_status"]
        available = [int(status["version"]) for status in statuses if status["state"] == "AVAILABLE"]
        if not available:
            raise UserError(f"{self._url} has no version of {self.name} ready; its log says why")
        return max(available)

    def _ask(self, method: str, path: str, body: bytes | None = None) -> Any:
        """Sends a request, again if the server is busy or starts anew, and returns what it answers."""
        for number in range(TRIES):
            status, headers, content = self._send(method, path, body, is_last=number == TRIES - 1)
            if status not in (0, 503) or number == TRIES - 1:
                break
            time.sleep(_wait_seconds(headers.get("Retry-After", ""), number))
        try:
            answer = json.loads(content)
        except ValueError as error:
            raise UserError(f"{self._url}{path} answered {status} with something else than JSON") from error
        if status != 200:
            reason = answer.get("error", content[:200]) if isinstance(answer, dict) else content[:200]
            raise UserError(f"{self._url} answered {status}: {reason}")
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
                raise UserError(f"cannot reach {self._url}: {error}; is the server running?") from error
            return 0, {}, b""


def _wait_seconds(retry_after: str, number: int) -> float:
    """What the server asks for, or longer and longer."""
    wanted = float(retry_after) if retry_after.isdigit() else 0.1 * 2**number
    return min(wanted, LONGEST_WAIT_SECONDS)
