"""What all endpoints share, and how a request reaches it."""

from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request

from steps.serving.jobs import Bell
from steps.serving.keys import Keys
from steps.serving.limits import Limits
from steps.serving.live import Live
from steps.serving.metrics import Metrics
from steps.serving.traces import Traces


@dataclass
class Context:
    """The state of one server."""

    limits: Limits
    keys: Keys
    live: Live = field(default_factory=Live)
    traces: Traces = field(default_factory=lambda: Traces(0.0, ""))
    bell: Bell = field(default_factory=Bell)
    active: int = 0  # requests whose answer is not complete

    def __post_init__(self) -> None:
        self.metrics = Metrics(self.live, self.traces)


def context_of(request: Request) -> Context:
    """Return the server's state."""
    context: Any = request.app.state.context
    return context
