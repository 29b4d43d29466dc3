"""TensorFlow Serving's REST API: predictions, status and metadata of every model."""

import asyncio
import io
from collections.abc import Sequence
from typing import Annotated, Any

import anyio.to_thread
import numpy as np
import pydantic
import soundfile
from fastapi import APIRouter, Path, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sepnet.export.signatures import TENSOR, WAV
from sepnet.serving.engine.errors import BAD_REQUEST, TOO_LARGE, ApiError, unavailable
from sepnet.serving.engine.options import MIB, ServeOptions, parse_version
from sepnet.serving.engine.runner import Runner
from sepnet.serving.engine.store import ModelStore
from sepnet.serving.engine.versions import LoadedVersion
from sepnet.serving.routes.disconnect import disconnected
from sepnet.serving.routes.json_tensors import parse_request, write_answer
from sepnet.serving.routes.tensor_requests import check_whole, packed, unpacked

PIECE_BYTES = MIB // 2
LEAST_ROW_SAMPLES = 1024
EXAMPLE_REQUEST = {"signature_name": "serving_default", "instances": [[[0.0, 0.0], [0.1, -0.1]]]}
REQUEST_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {
                    "signature_name": {"type": "string"},
                    "instances": {"type": "array", "items": {}},
                    "inputs": {},
                },
            },
            "example": EXAMPLE_REQUEST,
        }
    },
}


class Error(pydantic.BaseModel):
    """Every error's answer."""

    error: str


ERROR_ANSWERS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "model": Error}
    for status, text in {
        400: "malformed",
        401: "no token, or a wrong one",
        404: "not there",
        413: "too large",
        503: "busy or shutting down; Retry-After says when to come again",
        # Among them those of a request's fields, which FastAPI would describe as answers of its own.
        "4XX": "another error of the request",
    }.items()
}

Name = Annotated[str, Path(description="name of a model: a folder under saved_models/")]


def rest_routes(store: ModelStore, runner: Runner, options: ServeOptions) -> APIRouter:
    """The routes under `/v1/models`."""
    router = APIRouter(prefix="/v1/models", responses=ERROR_ANSWERS)

    async def predict(request: Request, name: str, number: int | None = None, label: str | None = None) -> Response:
        body = await request.body()
        with store.lease(name, number, label) as version:
            # Parsing and writing megabytes of JSON would hold up everybody else.
            limit = version.most_samples(options.max_predict_seconds)
            # Each sample is a list of its channels; parsed lists take far more memory than their text.
            if body.count(b"[") > 2 * limit:
                raise ApiError(TOO_LARGE, f"over {2 * limit} lists in one request; send fewer samples, or use {TENSOR}")
            signature, inputs, is_row = await anyio.to_thread.run_sync(parse_request, body, version.signatures)
            num_samples = await anyio.to_thread.run_sync(_count_samples, version, signature, inputs)
            if num_samples > limit:
                raise ApiError(
                    TOO_LARGE,
                    f"{num_samples} samples in one request, of {_least_row(version)} at least in each row; expected at "
                    f"most {limit}: cut the song into blocks, as sepnet.separation.remote_model does, or send it to "
                    "/separate",
                )
            to_run, inputs = await anyio.to_thread.run_sync(unpacked, version, signature, inputs)
            outputs = await _unless_gone(request, runner.submit(version, to_run, inputs, num_samples, limit))
            if to_run != signature:
                outputs = await anyio.to_thread.run_sync(packed, outputs)
            pieces = await anyio.to_thread.run_sync(write_answer, outputs, is_row)
        return JsonResponse(pieces)

    def described(extra: str) -> dict[str, Any]:
        return {"openapi_extra": {"requestBody": REQUEST_BODY}, "summary": f"Predict with {extra}"}

    @router.post("/{name}:predict", **described("the newest version"))
    async def predict_newest(request: Request, name: Name) -> Response:
        return await predict(request, name)

    @router.post("/{name}/versions/{version}:predict", **described("one version"))
    async def predict_version(request: Request, name: Name, version: str) -> Response:
        return await predict(request, name, number=_number(version))

    @router.post("/{name}/labels/{label}:predict", **described("the version that has a label"))
    async def predict_label(request: Request, name: Name, label: str) -> Response:
        return await predict(request, name, label=label)

    @router.get("/{name}")
    @router.get("/{name}/versions/{version}")
    @router.get("/{name}/labels/{label}")
    async def status(name: Name, version: str | None = None, label: str | None = None) -> dict[str, Any]:
        return store.status(name, _number(version), label)

    @router.get("/{name}/metadata")
    @router.get("/{name}/versions/{version}/metadata")
    @router.get("/{name}/labels/{label}/metadata")
    async def metadata(name: Name, version: str | None = None, label: str | None = None) -> dict[str, Any]:
        with store.lease(name, _number(version), label) as found:
            return {
                "model_spec": {"name": name, "signature_name": "", "version": str(found.number)},
                "metadata": {"signature_def": {"signature_def": found.signature_defs}},
            }

    return router


class JsonResponse(Response):
    """An answer in pieces that are written already. Of a large one, all the rest would be copied with each write."""

    media_type = "application/json"

    def __init__(self, pieces: Sequence[bytes]):
        super().__init__(headers={"Content-Length": str(sum(map(len, pieces)))})
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for piece in self._pieces:
            for start in range(0, len(piece), PIECE_BYTES):
                part = memoryview(piece)[start : start + PIECE_BYTES]
                await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _number(version: str | None) -> int | None:
    if version is None:
        return None
    try:
        return parse_version(version)
    except ValueError as error:
        raise ApiError(BAD_REQUEST, f"Failed to convert version: {version} to numeric; {error}") from error


def _count_samples(version: LoadedVersion, signature: str, inputs: dict[str, np.ndarray]) -> int:
    """Counts the samples of a request, all of its batch together; strings may hold anything and are checked.

    A short row counts as much as what the model makes of it.
    """
    (values,) = inputs.values()
    least, size = _least_row(version), version.contract["num_channels"]
    if signature == TENSOR:
        check_whole(values)
        return sum(max(least, len(value) // (4 * size)) for value in values)
    if signature != WAV:
        return len(values) * max(least, values.shape[1] if values.ndim > 1 else 0)
    total = 0
    for value in values:
        try:
            info = soundfile.info(io.BytesIO(value))
        except soundfile.LibsndfileError as error:
            raise ApiError(BAD_REQUEST, f"what wav_bytes holds is no WAV file: {error.error_string}") from error
        total += max(least, info.frames) * -(-info.channels // size)
    return total


def _least_row(version: LoadedVersion) -> int:
    """The samples that the shortest row counts as: that it is padded to, and for the row itself."""
    return max(version.contract["grid_samples"], LEAST_ROW_SAMPLES)


async def _unless_gone(request: Request, answer):
    """Waits for an answer; if the client goes away before the run has begun, there will be none."""
    waiting = asyncio.wrap_future(answer)
    gone = asyncio.ensure_future(disconnected(request.receive))
    try:
        await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done() and answer.cancel():
            raise unavailable("the client has gone away")
        return await waiting
    finally:
        gone.cancel()
