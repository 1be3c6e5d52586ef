"""Server-sent events: chunks as they come, pings while nothing comes, and errors as events."""

import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.types import Message, Receive, Scope, Send

from steps.serving.errors import ApiError, of_exception, where

DONE = b"data: [DONE]\n\n"
_log = logging.getLogger("phi_mlflow.serving")
# json.dumps would make an encoder for each event.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def event(data: Mapping[str, Any], name: str = "") -> bytes:
    """Return an event.

    Args:
        name: its type, for clients that read one.
    """
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {_encode(data)}\n\n".encode()


def openai_error(error: ApiError) -> bytes:
    """Return the event of an error, and the end of the stream."""
    return event(error.openai()) + DONE


class EventStream(EventSourceResponse):
    """A streamed response. It ends properly by itself, by an error, and when the client has gone."""

    def __init__(
        self,
        events: AsyncIterator[bytes],
        ping_s: float,
        on_error: Callable[[ApiError], bytes],
        on_end: Callable[[int], None],
    ) -> None:
        """
        Args:
            events: whole events.
            ping_s: seconds between two pings.
            on_error: returns the bytes that end the stream after an error.
            on_end: called once at the end, with the status that the answer would have had: 200, the error's, or 499 for
                a client that has gone.
        """
        self._events, self._on_error, self._on_end = events, on_error, on_end
        self._status = 499
        super().__init__(
            self._guarded(),
            ping=ping_s,
            sep="\n",
            ping_message_factory=lambda: ServerSentEvent(comment="ping", sep="\n"),
            headers={"Cache-Control": "no-cache"},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream. A client may have gone before the first event, so the end is told here."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_end(self._status)

    async def _send_with_timeout(self, send: Send, message: Message) -> None:
        """Send an event. Nothing limits the time, so none of the library's scopes with a clock is needed."""
        await send(message)

    async def _guarded(self) -> AsyncIterator[bytes]:
        try:
            async for item in self._events:
                yield item
            self._status = 200
        except Exception as error:
            failure = of_exception(error)
            self._status = failure.status
            if failure.status == 500:
                _log.error("a stream failed: %s", where(error))
            yield self._on_error(failure)
