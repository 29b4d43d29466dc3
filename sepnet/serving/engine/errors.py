"""Errors as TensorFlow Serving answers them: its HTTP status, and `{"error": "..."}`."""

import orjson
from starlette.responses import Response

from pipelines.errors import one_line

BAD_REQUEST = 400
NOT_FOUND = 404
NOT_ALLOWED = 405
TIMEOUT = 408
TOO_LARGE = 413
UNSUPPORTED = 415
INTERNAL = 500
UNAVAILABLE = 503


class ApiError(Exception):
    """An error that is sent to the client instead of an answer: an HTTP status, a message, and headers beside it."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or {}


def unavailable(message: str, retry_seconds: float = 1) -> ApiError:
    """503 that says when to come again."""
    return ApiError(UNAVAILABLE, message, {"Retry-After": str(max(1, round(retry_seconds)))})


def error_response(error: ApiError) -> Response:
    """The answer for an error."""
    return Response(
        orjson.dumps({"error": one_line(error.message)}), error.status, error.headers, media_type="application/json"
    )
