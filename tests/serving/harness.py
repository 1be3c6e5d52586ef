"""A server in a thread of the test's own process, so that a test sees its state and its errors."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import requests
import uvicorn

from steps.serving.app import make_app
from steps.serving.context import Context
from steps.serving.keys import Keys
from steps.serving.limits import Limits
from steps.serving.models import ServedModel
from steps.serving.server import listen, uvicorn_config
from steps.serving.traces import Traces

NAME = "tiny-phi3"
FRANCE = [{"role": "user", "content": "What is the capital of France?"}]
LONG = {"messages": FRANCE, "ignore_eos": True, "max_tokens": 1900}  # an answer that takes many seconds


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    context: Context

    def post(self, path: str, body: Any, **arguments: Any) -> requests.Response:
        """Post a JSON body."""
        return requests.post(self.url + path, json=body, timeout=60, **arguments)

    def get(self, path: str, **arguments: Any) -> requests.Response:
        """Get a page."""
        return requests.get(self.url + path, timeout=60, **arguments)

    def gauge(self, name: str) -> float:
        """Return a figure of /metrics."""
        lines = self.get("/metrics").text.splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))

    def wait_until_idle(self, seconds: float = 2.0) -> None:
        """Wait until no answer has a row, and fail if that takes longer."""
        end = time.monotonic() + seconds
        while self.gauge("phi_requests_running") or self.gauge("phi_requests_waiting"):
            assert time.monotonic() < end, "a row is still in use"
            time.sleep(0.02)


@contextlib.contextmanager
def running(model: ServedModel | None, limits: Limits | None = None, traces: Traces | None = None) -> Iterator[Server]:
    """Run a server with a loaded model, or with none, as while it loads. The keys are those of the environment."""
    context = Context(limits or Limits(), Keys(), traces=traces or Traces(0.0, ""))
    context.live.current = model
    bound = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn_config(make_app(context), context.limits))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[bound])), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield Server(f"http://127.0.0.1:{bound.getsockname()[1]}", context)
    finally:
        server.should_exit = True
        thread.join(10)
        bound.close()
