"""Errors of the server, in OpenAI's shape and in Anthropic's. No error repeats a part of the request."""

import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException

_TYPES = {  # status -> OpenAI's type, Anthropic's type
    400: ("invalid_request_error", "invalid_request_error"),
    401: ("authentication_error", "authentication_error"),
    403: ("permission_error", "permission_error"),
    404: ("invalid_request_error", "not_found_error"),
    405: ("invalid_request_error", "invalid_request_error"),
    408: ("timeout_error", "timeout_error"),
    413: ("invalid_request_error", "request_too_large"),
    415: ("invalid_request_error", "invalid_request_error"),
    422: ("invalid_request_error", "invalid_request_error"),
    429: ("rate_limit_error", "rate_limit_error"),
    501: ("not_supported_error", "api_error"),
    503: ("unavailable_error", "overloaded_error"),
    504: ("timeout_error", "timeout_error"),
}
_SERVER = ("server_error", "api_error")
_RETRY_AFTER = {429: "1", 503: "2"}  # seconds


class ApiError(Exception):
    """A request that is refused, or an answer that failed."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """
        Args:
            status: the HTTP status.
            message: one line.
            code: a word for programs, such as context_length_exceeded.
            param: the field of the request, such as messages[0].content.
            headers: of the response, beside those that the status needs.
        """
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, " ".join(message.split()), code, param
        self.headers = {**(headers or {})}
        if status in _RETRY_AFTER:
            self.headers.setdefault("Retry-After", _RETRY_AFTER[status])
        if status in (501, 504):
            self.headers["x-should-retry"] = "false"  # the same request would fail, or take as long, again
        if status == 401:
            self.headers["WWW-Authenticate"] = "Bearer"

    def openai(self) -> dict[str, Any]:
        """Return OpenAI's body."""
        kind = _TYPES.get(self.status, _SERVER)[0]
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def anthropic(self) -> dict[str, Any]:
        """Return Anthropic's body."""
        kind = _TYPES.get(self.status, _SERVER)[1]
        return {"type": "error", "error": {"type": kind, "message": self.message}}


def where(error: BaseException) -> str:
    """Return the type of an unexpected exception and the line that raised it, for a log: no part of a request."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"


def of_exception(error: BaseException) -> ApiError:
    """Return what the client is told about an exception. An unexpected one tells its type only."""
    if isinstance(error, ApiError):
        return error
    if not isinstance(error, MlflowException):
        return ApiError(500, f"the server failed ({type(error).__name__}): try again", "internal_error")
    status, message = error.get_http_status_code(), error.message
    if error.error_code == "INVALID_STATE":
        return ApiError(503, "the model was replaced or closed: try again", "model_closed")
    if error.error_code == "REQUEST_LIMIT_EXCEEDED":
        return ApiError(429, message, "queue_full")
    if error.error_code == "DEADLINE_EXCEEDED":
        return ApiError(504, message, "timeout")
    if status >= 500:
        return ApiError(500, message, "internal_error")
    return ApiError(400, message, getattr(error, "code", None) or "invalid_value", getattr(error, "param", None))
