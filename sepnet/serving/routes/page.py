"""The page, what it asks for, and the routes that tell how the server is."""

import json
import pathlib
import threading
from typing import Any

from fastapi import APIRouter
from starlette.responses import FileResponse, Response

from sepnet.serving.engine.errors import error_response, unavailable
from sepnet.serving.engine.gate import Gate
from sepnet.serving.engine.metrics import CONTENT_TYPE, Metrics
from sepnet.serving.engine.store import ModelStore
from sepnet.serving.routes.file_names import disposition
from sepnet.serving.routes.rest import ERROR_ANSWERS

STATIC = pathlib.Path(__file__).parents[1] / "static"


def page_routes(store: ModelStore, gate: Gate, metrics: Metrics) -> APIRouter:
    """`/`, `/models`, `/demo-song`, `/healthz`, `/readyz` and `/metrics`."""
    router = APIRouter(responses=ERROR_ANSWERS)
    one_at_a_time = threading.Lock()

    @router.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})

    @router.get("/models", response_model=list[dict[str, Any]])
    async def models() -> Response:
        # In ASCII, since a contract may hold halves of characters.
        return Response(json.dumps([version.summary() for version in store.newest()]), media_type="application/json")

    @router.get("/demo-song", response_class=FileResponse)
    def demo_song() -> Response:
        from pipelines.demo_songs.synthesis import demo_test_song

        with one_at_a_time:
            folder = demo_test_song()
        headers = {"content-disposition": disposition(f"{folder.name}.wav")}
        return FileResponse(folder / "mixture.wav", media_type="audio/wav", headers=headers)

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @router.get("/readyz")
    async def readyz() -> Response:
        if gate.is_draining:
            return error_response(unavailable("the server is shutting down", 5))
        if not store.newest():
            return error_response(unavailable("no model is loaded", 5))
        return Response('{"status":"ready"}', media_type="application/json")

    @router.get("/metrics")
    async def prometheus() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    return router
