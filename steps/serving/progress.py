"""What is known of a request when it ends: for the count of its status, and for its trace."""

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steps.serving.jobs import Job
    from steps.serving.models import ServedModel

_KEY = "phi_progress"


@dataclass
class Progress:
    """How far a request has come."""

    body: dict[str, Any] | None = None  # once it was read
    job: "Job | None" = None  # once the answer was begun
    model: "ServedModel | None" = None  # that answers
    status: int = 0  # what the answer of a stream would have had; 0 for the response's own
    error: str = ""  # the message of a refusal or a failure


def progress_of(scope: MutableMapping[str, Any]) -> Progress:
    """Return the progress of the request of an ASGI scope. The first call makes it."""
    progress: Progress = scope.setdefault(_KEY, Progress())
    return progress
