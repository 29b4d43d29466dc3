"""The application: every part, put together."""

import contextlib
import dataclasses
import logging

import anyio.to_thread
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.gzip import GZipMiddleware
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

import sepnet
from pipelines.errors import UserError
from sepnet.serving.engine.errors import BAD_REQUEST, INTERNAL, NOT_ALLOWED, ApiError, error_response
from sepnet.serving.engine.gate import Gate
from sepnet.serving.engine.metrics import Metrics
from sepnet.serving.engine.options import ServeOptions
from sepnet.serving.engine.runner import Runner
from sepnet.serving.engine.store import ModelStore
from sepnet.serving.guard import Guard
from sepnet.serving.routes.page import STATIC, page_routes
from sepnet.serving.routes.rest import rest_routes
from sepnet.serving.routes.separation import Separation

LOGGER = logging.getLogger(__name__)
# Numbers and base64 hardly shrink further at the higher levels, which take several times as long.
GZIP_LEVEL = 1


@dataclasses.dataclass(frozen=True)
class Service:
    """The ASGI application, what counts the requests inside, and the models."""

    app: Guard
    gate: Gate
    store: ModelStore


def build_service(options: ServeOptions) -> Service:
    """Builds the server's application; models are loaded when it starts up."""
    metrics = Metrics()
    store = ModelStore(options)
    runner = Runner(options.max_batch, metrics)
    gate = Gate(options, metrics, runner)
    separation = Separation(store, runner, options)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI):
        await anyio.to_thread.run_sync(store.start)
        yield
        separation.stop()
        runner.stop()
        store.stop()

    app = FastAPI(
        title="sepnet",
        version=sepnet.__version__,
        description="Music source separation: TensorFlow Serving's REST API, and whole songs.",
        lifespan=lifespan,
        # Their pages load scripts from another host.
        docs_url=None,
        redoc_url=None,
    )
    app.include_router(rest_routes(store, runner, options))
    app.include_router(separation.routes())
    app.include_router(page_routes(store, gate, metrics))
    app.mount("/static", StaticFiles(directory=STATIC))
    _answer_errors_alike(app)
    # Stems are left as they are.
    packing = GZipMiddleware(app, compresslevel=GZIP_LEVEL)
    return Service(Guard(packing, gate), gate, store)


def _answer_errors_alike(app: FastAPI) -> None:
    """Every error is `{"error": "..."}`."""

    @app.exception_handler(ApiError)
    async def known(_, error: ApiError) -> Response:
        return error_response(error)

    @app.exception_handler(UserError)
    async def of_the_server(_, error: UserError) -> Response:
        LOGGER.error("%s", error)
        return error_response(ApiError(INTERNAL, "the server cannot do this now; its log says why"))

    @app.exception_handler(RequestValidationError)
    async def invalid(_, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return error_response(ApiError(BAD_REQUEST, f"{'.'.join(map(str, first['loc']))}: {first['msg']}"))

    @app.exception_handler(HTTPException)
    async def unknown(request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        if error.status_code == NOT_ALLOWED:
            allowed = headers.get("Allow", "GET").split(", ")
            if "GET" in allowed:
                # The guard turns one into the other.
                allowed = ["GET", "HEAD", *[method for method in allowed if method not in ("GET", "HEAD")]]
            headers["Allow"] = ", ".join(allowed)
            if request.method == "OPTIONS":
                return Response(status_code=204, headers=headers)
        message = f"{request.method} {request.url.path}"
        if request.url.path.startswith("/v1/"):
            # TensorFlow Serving's answer, whatever is wrong with a route of its own.
            return error_response(ApiError(BAD_REQUEST, f"Malformed request: {message}", headers))
        return error_response(ApiError(error.status_code, f"{error.detail}: {message}", headers))

    @app.exception_handler(ClientDisconnect)
    async def gone(*_) -> Response:
        return error_response(ApiError(499, "the client has gone away"))

    @app.exception_handler(Exception)
    async def unexpected(*_) -> Response:
        return error_response(ApiError(INTERNAL, "the server failed; its log says more"))
