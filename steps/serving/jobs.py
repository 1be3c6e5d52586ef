"""Run blocking answers in threads, and hand what they give to the event loop.

An answer is read in one thread from its beginning to its end, in one context: MLflow's tracing needs that. The threads
are daemons, because some models can't be stopped, and the process must end all the same.

    event loop   job.next() ── await ──┐      for each chunk: await, write to the socket     cancel()
    thread            start(): check and queue ─► chunk ─► chunk ─► chunk ─► end    <──────────┘ at the next token
"""

import asyncio
import collections
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

from steps.serving.answers import Answer
from steps.serving.errors import ApiError

_END = object()
_Result = TypeVar("_Result")


class ClientGone(Exception):
    """The client closed its connection before its answer was complete."""


class Job:
    """An answer that a thread reads for a coroutine."""

    def __init__(self, start: Callable[[], Answer], stream: bool, seconds: float) -> None:
        """
        Args:
            start: checks and queues the request.
            stream: whether the coroutine wants chunks, or the response.
            seconds: until the answer must be complete.
        """
        self.answer: Answer | None = None
        self._start, self._stream = start, stream
        self._loop = asyncio.get_running_loop()
        self._clock = self._loop.call_later(seconds, self._expire, seconds)
        self._events: collections.deque[Any] = collections.deque()
        self._arrival: asyncio.Future[None] | None = None  # while the coroutine waits
        self._lock, self._cancelled = threading.Lock(), False
        self.over = False  # whether the model has given all, or refused
        threading.Thread(target=self._work, name="answer", daemon=True).start()

    async def next(self) -> Any:
        """Return the next chunk, or the response; None at the end.

        Raises:
            Exception: what the model raised, or ApiError after the deadline.
        """
        while not self._events:
            self._arrival = self._loop.create_future()
            await self._arrival
        event = self._events.popleft()
        if isinstance(event, BaseException):
            raise event
        return None if event is _END else event

    async def rest(self, first: Any) -> AsyncIterator[Any]:
        """Yield a chunk that was read already, and those that follow."""
        chunk = first
        while chunk is not None:
            yield chunk
            chunk = await self.next()

    def cancel(self) -> None:
        """Give the answer up. This may be called at any time, also twice."""
        self._clock.cancel()
        with self._lock:
            self._cancelled = True
            if self.answer:
                self.answer.cancel()

    def _expire(self, seconds: float) -> None:
        if not self.over:  # else the client reads slowly what is complete
            self.cancel()
            self._arrive(ApiError(504, f"no complete answer within {seconds:g} s: ask for fewer tokens", "timeout"))

    def _arrive(self, event: Any) -> None:
        self._events.append(event)
        if self._arrival and not self._arrival.done():
            self._arrival.set_result(None)

    def _work(self) -> None:
        try:
            answer = self._start()
            with self._lock:
                self.answer = answer
                if self._cancelled:
                    answer.cancel()
            for item in answer.chunks() if self._stream else [answer.response()]:
                if self._cancelled:
                    return
                self._call(self._arrive, item)
            self.over = True
            self._call(self._arrive, _END)
        except BaseException as error:
            self.over = True
            self._call(self._arrive, error)

    def _call(self, function: Callable[..., Any], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(function, *arguments)


async def in_thread(function: Callable[[], _Result]) -> _Result:
    """Return what a function returns that may block. The process does not wait for its thread."""
    loop, future = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()

    def settle(method: Callable[[Any], None], value: Any) -> None:
        if not future.done():
            method(value)

    def work() -> None:
        try:
            outcome: tuple[Callable[[Any], None], Any] = (future.set_result, function())
        except Exception as error:
            outcome = (future.set_exception, error)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=work, daemon=True).start()
    return await future


async def unless_gone(request: Request, work: Coroutine[Any, Any, _Result]) -> _Result:
    """Return what a coroutine returns, or raise ClientGone as soon as the client closes its connection."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
