"""The generations that wait for a row of the KV cache, first come, first served."""

import threading
from collections import deque

from mlflow.protos.databricks_pb2 import INVALID_STATE, REQUEST_LIMIT_EXCEEDED

from ..errors import ModelError
from .generation import Generation


class RequestQueue:
    """A queue of bounded length. Any thread may call it."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._changed = threading.Condition()
        self._waiting: deque[Generation] = deque()
        self._closed = False

    def put(self, generation: Generation, wait: bool) -> None:
        """Append a generation.

        Args:
            wait: whether to wait for room when the queue is full.

        Raises:
            ModelError: the queue is full (HTTP 429) or closed.
        """
        with self._changed:
            self._drop_cancelled()
            while wait and len(self._waiting) >= self._capacity and not self._closed:
                self._changed.wait()
            if self._closed:
                raise closed_error()
            if len(self._waiting) >= self._capacity:
                raise ModelError(
                    f"{len(self._waiting)} requests are waiting, and the model config's queue holds {self._capacity}: "
                    "try again later, or raise queue",
                    error_code=REQUEST_LIMIT_EXCEEDED,
                )
            self._waiting.append(generation)
            self._changed.notify_all()

    def waiting(self) -> list[Generation]:
        """Return the generations that wait, without the cancelled ones."""
        with self._changed:
            self._drop_cancelled()
            return [*self._waiting]

    def remove(self, generation: Generation) -> None:
        """Take a generation out. It may be gone already, when its caller cancelled it and another caller's put ran."""
        with self._changed:
            if generation in self._waiting:
                self._waiting.remove(generation)
                self._changed.notify_all()

    def wait_for_work(self, busy: bool) -> bool:
        """Return True when a generation waits or the engine is `busy` with others, and False when the queue is closed.

        Sleep until then.
        """
        with self._changed:
            while not (self._closed or self._waiting or busy):
                self._changed.wait()
            return not self._closed

    def close(self) -> None:
        """Refuse every further generation, and wake all that wait for room or for work."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def drain(self) -> list[Generation]:
        """Empty the queue, and return what was in it."""
        with self._changed:
            waiting, self._waiting = self._waiting, deque()
        return [*waiting]

    def _drop_cancelled(self) -> None:
        """Remove the cancelled generations. The caller holds the lock."""
        if any(generation.cancelled for generation in self._waiting):
            self._waiting = deque(generation for generation in self._waiting if not generation.cancelled)
            self._changed.notify_all()


def closed_error() -> ModelError:
    """Return the error of everything that is asked of a closed model."""
    return ModelError("the model was closed: load it again", error_code=INVALID_STATE)
