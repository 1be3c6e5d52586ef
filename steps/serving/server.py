"""The life of the server: listen, load, answer, drain, end.

    bind ─► listen ─► load the model ─► answer ──── SIGTERM ─► drain ─► end
              /health: 503 loading      200                    503 draining, answers in work go on

The first SIGTERM or SIGINT drains. A signal that comes a second later or more ends the answers in work, too.
SIGHUP reads the keys again.
"""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import uvicorn
from fastapi import FastAPI

from steps.common.errors import StepError
from steps.serving.connection import Connection
from steps.serving.context import Context
from steps.serving.limits import Limits
from steps.serving.memory import give_memory_back, share_memory
from steps.serving.models import ServedModel

_log = logging.getLogger("phi_mlflow.serving")
_SAME_SIGNAL = 1.0  # seconds; Ctrl-C reaches the process from the terminal and from MLflow


@dataclass(frozen=True)
class Source:
    """Where the model comes from."""

    uri: str
    load: Callable[[str], ServedModel]
    resolve: Callable[[], str] | None = None  # what an alias stands for now, if the server follows it


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address. Raise StepError if the address can't be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise StepError(f"port {port} of {host} cannot be used ({error.strerror or error}): choose another") from None
    return bound


def serve(app: FastAPI, bound: socket.socket, source: Source, on_ready: Callable[[], None]) -> None:
    """Serve until a signal comes. Return when everything is answered, or when the time to drain is over.

    Raises:
        StepError: the model cannot be loaded.
    """
    share_memory()
    asyncio.run(_serve(app, bound, source, on_ready))


def uvicorn_config(app: FastAPI, limits: Limits) -> uvicorn.Config:
    """Return how uvicorn runs the application: quiet, and with the limits of connections."""
    return uvicorn.Config(
        app,
        http=Connection.with_limit(limits.body_s),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,
    )


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to _Stop: uvicorn's handler would cut the streams."""
        yield


class _Stop:
    """Turns signals into two events."""

    def __init__(self) -> None:
        self.drain, self.now = asyncio.Event(), asyncio.Event()
        self._loop, self._first = asyncio.get_running_loop(), 0.0

    def ask(self) -> None:
        """Drain at the first call; end at once at a later one."""
        if not self.drain.is_set():
            self._first = self._loop.time()
            self.drain.set()
        elif self._loop.time() - self._first >= _SAME_SIGNAL:
            self.now.set()


async def _serve(app: FastAPI, bound: socket.socket, source: Source, on_ready: Callable[[], None]) -> None:
    context: Context = app.state.context
    server, stop = _Server(uvicorn_config(app, context.limits)), _Stop()
    _on_signal(stop.ask, signal.SIGTERM, signal.SIGINT)
    _on_signal(partial(_reload, context), signal.SIGHUP)
    serving = asyncio.ensure_future(server.serve(sockets=[bound]))
    try:
        if await _load(context, source, stop):
            on_ready()
            await _answer(context, source, stop)
    finally:
        server.should_exit = True
        await serving
        if context.live.current:
            context.live.current.retire()


async def _load(context: Context, source: Source, stop: _Stop) -> bool:
    """Load the model; return False if a signal came first."""
    loading = asyncio.ensure_future(context.live.start(lambda: source.load(source.uri)))
    draining = asyncio.ensure_future(stop.drain.wait())
    try:
        await asyncio.wait((loading, draining), return_when=asyncio.FIRST_COMPLETED)
        if not loading.done():
            context.live.draining = True
            return False
        loading.result()
        return True
    finally:
        loading.cancel()
        draining.cancel()


async def _answer(context: Context, source: Source, stop: _Stop) -> None:
    """Answer until a signal comes, and then until every answer is complete or the time is over."""
    beside = [asyncio.ensure_future(give_memory_back())]
    if source.resolve:
        follow = context.live.follow(source.resolve, source.load, context.limits.follow_s)
        beside.append(asyncio.ensure_future(follow))
    await stop.drain.wait()
    for task in beside:
        task.cancel()
    context.live.draining = True
    end = asyncio.get_running_loop().time() + context.limits.drain_s
    while context.active and not stop.now.is_set() and asyncio.get_running_loop().time() < end:
        await asyncio.sleep(0.05)


def _on_signal(action: Callable[[], None], *numbers: int) -> None:
    """Let signals do an action in the event loop. They do nothing once the loop has ended, while the run is closed."""
    loop = asyncio.get_running_loop()

    def handle(*_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(action)

    for number in numbers:
        signal.signal(number, handle)


def _reload(context: Context) -> None:
    try:
        context.keys.reload()
    except StepError as error:
        _log.warning("the keys stay as they were: %s", error)
