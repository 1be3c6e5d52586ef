"""Run answers for the event loop: what blocks in threads, and the chunks of a stream in the loop itself.

A thread checks and queues a request, because a long prompt or a large grammar takes a while. It then waits for a whole
answer. The chunks of the custom model's streams do not block, so the loop takes them: the engine's thread wakes it. A
thread for each stream would be woken at every token, and would keep Python from the engine's thread.

    thread         start(): check and queue ──┐
    engine's thread          token ─► wake()  │    token ─► wake()                   <── cancel() frees the row
    event loop     job.next() ── await ───────┴─► _take(): chunks ─► the socket    ─► _take(): ...

An answer is made in one context from its beginning to its end: MLflow's tracing needs that.
"""

import asyncio
import collections
import contextlib
import contextvars
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, TypeVar

from starlette.requests import Request

from steps.serving.answers import Answer
from steps.serving.errors import ApiError
from steps.serving.threads import THREADS

_END = object()
_Result = TypeVar("_Result")


class ClientGone(Exception):
    """The client closed its connection before its answer was complete."""


class Bell:
    """Wakes the event loop once for the tokens of a whole step, however many answers they belong to."""

    def __init__(self) -> None:
        self._calls: collections.deque[Callable[[], None]] = collections.deque()
        self._rung = False

    def ring(self, loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
        """Let the loop call a function. Any thread may ring."""
        self._calls.append(call)
        if not self._rung:
            self._rung = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(self._answer)

    def _answer(self) -> None:
        self._rung = False  # first: who rings from now on wakes the loop again
        while self._calls:
            self._calls.popleft()()


class Job:
    """An answer that is made for a coroutine."""

    def __init__(self, start: Callable[[], Answer], stream: bool, seconds: float, bell: Bell) -> None:
        """
        Args:
            start: checks and queues the request.
            stream: whether the coroutine wants chunks, or the response.
            seconds: until the answer must be complete.
            bell: of the event loop.
        """
        self.answer: Answer | None = None
        self._start, self._stream, self._bell = start, stream, bell
        self._loop = asyncio.get_running_loop()
        self._clock = self._loop.call_later(seconds, self._expire, seconds)
        self._events: collections.deque[Any] = collections.deque()
        self._arrival: asyncio.Future[None] | None = None  # while the coroutine waits
        self._chunks: Iterator[Any] = iter(())  # that the loop takes
        self._context, self._woken = contextvars.copy_context(), False
        self._lock, self._cancelled = threading.Lock(), False
        self.over = False  # whether the model has given all, or refused
        THREADS.run(self._work)

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
        """Do what blocks, in a thread."""
        try:
            answer = self._context.run(self._start)
            with self._lock:
                self.answer = answer
                if self._cancelled:
                    answer.cancel()
            if self._stream and not answer.blocks:
                self._chunks = answer.chunks(self._wake)
                self._call(self._take)
                return
            chunks = self._context.run(answer.chunks, self._wake) if self._stream else iter([answer.response()])
            while (item := self._context.run(next, chunks, _END)) is not _END and not self._cancelled:
                self._call(self._arrive, item)
            self._call(self._end, _END)
        except BaseException as error:
            self._call(self._end, error)

    def _wake(self) -> None:
        """Let the loop take what is there. The engine's thread calls this."""
        if not self._woken:
            self._woken = True
            self._bell.ring(self._loop, self._take)

    def _take(self) -> None:
        """Take the chunks that are there."""
        self._woken = False  # first: what comes from now on wakes the loop again
        try:
            while not self.over and (item := self._context.run(next, self._chunks, _END)):
                if item is _END:
                    self._end(_END)
                else:
                    self._arrive(item)
        except Exception as error:
            self._end(error)

    def _end(self, event: Any) -> None:
        self.over = True
        self._arrive(event)

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

    THREADS.run(work)
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
