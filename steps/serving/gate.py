"""What every request passes first: its ID, its key, its host, and the count of its status."""

import logging
import re
import time
import uuid
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from steps.serving.context import Context
from steps.serving.errors import ApiError, where
from steps.serving.exchange import error_response
from steps.serving.keys import LOOPBACK
from steps.serving.progress import progress_of
from steps.serving.traces import Exchanged

OPEN_PATHS = ("/", "/health", "/ping")  # these need no key and tell no more than that the server is there
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_log = logging.getLogger("phi_mlflow.serving")


class Gate:
    """ASGI middleware around the application."""

    def __init__(self, app: ASGIApp, context: Context) -> None:
        self._app, self._context = app, context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request without a key; add the headers of every response; turn exceptions into responses."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, started = Headers(scope=scope), time.perf_counter()
        offered = headers.get("x-request-id", "")
        request_id = offered if _REQUEST_ID.fullmatch(offered) else uuid.uuid4().hex
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                extra = MutableHeaders(scope=message)
                extra["x-request-id"] = request_id
                extra["openai-processing-ms"] = str(int(1e3 * (time.perf_counter() - started)))
            await send(message)

        anthropic = scope["path"].startswith("/v1/messages")
        try:
            refusal = self._refusal(scope["path"], headers)
            if refusal:
                await error_response(refusal, anthropic)(scope, receive, send_with_headers)
            else:
                await self._app(scope, receive, send_with_headers)
        except Exception as error:
            _log.error("request %s failed: %s", request_id, where(error))
            if not status:
                await error_response(error, anthropic)(scope, receive, send_with_headers)
        finally:
            self._end(scope, headers, started, status)

    def _refusal(self, path: str, headers: Headers) -> ApiError | None:
        if not len(self._context.keys):
            # Without keys the server is on loopback. A page of another site must not reach it by a name of its own.
            host = headers.get("host", "localhost").rpartition("@")[2]
            name = host if host.endswith("]") else host.rsplit(":", 1)[0]
            if name.strip("[]") not in LOOPBACK:
                return ApiError(403, "this server without keys answers to localhost only", "host_not_allowed")
        if path not in OPEN_PATHS and not self._context.keys.admit(headers):
            return ApiError(401, "the API key is missing or wrong", "invalid_api_key")
        return None

    def _end(self, scope: Scope, headers: Headers, started: float, status: int) -> None:
        """Count the request, and keep a trace of it if it is sampled."""
        route: Any = scope.get("route")
        path, progress = getattr(route, "path", "other"), progress_of(scope)
        status = progress.status or status
        self._context.metrics.http.labels(path, _method(scope["method"]), str(status)).inc()
        if progress.body is None or not self._context.traces.sampled():
            return
        now = time.time_ns()
        answer = progress.job.answer if progress.job else None
        model = progress.model or self._context.live.current  # a request may be refused before it has a model
        self._context.traces.offer(
            Exchanged(
                route=path,
                client=self._context.keys.client(headers),
                model_name=model.name if model else "",
                model_uri=model.uri if model else "",
                model_id=model.model_id if model else "",
                body=progress.body,
                completions=tuple(answer.completions) if answer else (),
                status=status,
                error=progress.error,
                start_ns=now - int(1e9 * (time.perf_counter() - started)),
                end_ns=now,
            )
        )


def _method(method: str) -> str:
    return method if method in ("GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH") else "other"
