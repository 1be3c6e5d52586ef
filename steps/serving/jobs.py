"""Run blocking answers in threads, and hand what they give to the event loop.

An answer is read in one thread from its beginning to its end, in one context: MLflow's tracing needs that. The threads
are daemons, because some models can't be stopped, and the process must end all the same.

    event loop   job.next() ── await ──┐      for each chunk: await, write to the socket     cancel()
    thread            start(): check and queue ─► chunk ─► chunk ─► chunk ─► end    <──────────┘ at the next token
"""

import asyncio
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
        self._deadline, self._seconds = self._loop.time() + seconds, seconds
        self._events: asyncio.Queue[Any] = asyncio.Queue()
        self._lock, self._cancelled = threading.Lock(), False
        self.over = False  # whether the model has given all, or refused
        threading.Thread(target=self._work, name="answer", daemon=True).start()

    async def next(self) -> Any:
        """Return the next chunk, or the response; None at the end.

        Raises:
            Exception: what the model raised, or ApiError after the deadline.
        """
        try:
            async with asyncio.timeout_at(self._deadline):
                event = await self._events.get()
        except TimeoutError:
            self.cancel()
            message = f"no complete answer within {self._seconds:g} s: ask for fewer tokens"
            raise ApiError(504, message, "timeout") from None
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
        with self._lock:
            self._cancelled = True
            if self.answer:
                self.answer.cancel()

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
                self._call(self._events.put_nowait, item)
            self.over = True
            self._call(self._events.put_nowait, _END)
        except BaseException as error:
            self.over = True
            self._call(self._events.put_nowait, error)

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
