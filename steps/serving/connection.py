"""A connection of HTTP/1.1 that closes itself when the head of a request does not arrive in time.

uvicorn waits for ever for the rest of a request's head. So clients that send half of one would hold their connections.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class Connection(H11Protocol):
    """uvicorn's connection with a time limit on the head of each request."""

    head_s = 30.0

    @classmethod
    def with_limit(cls, seconds: float) -> "type[Connection]":
        """Return this class with another limit. uvicorn makes the connections, so it takes a class."""
        return type("Connection", (cls,), {"head_s": seconds})

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # type: ignore[override] # uvicorn narrows it
        """Start the clock."""
        self._clock: asyncio.TimerHandle | None = None
        super().connection_made(transport)  # type: ignore[arg-type] # a TCP transport is a Transport
        self._start_clock()

    def data_received(self, data: bytes) -> None:
        """Start the clock when a request begins; stop it when its head is complete."""
        super().data_received(data)
        if self._in_work():
            self._stop_clock()
        else:
            self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_clock()
        super().connection_lost(exc)

    def _in_work(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _start_clock(self) -> None:
        if self._clock is None:
            self._clock = self.loop.call_later(self.head_s, self._too_late)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _too_late(self, *_: Any) -> None:
        self._clock = None
        if not self._in_work() and not self.transport.is_closing():
            self.transport.close()
