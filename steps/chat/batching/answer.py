"""One answer that is being made: what its caller waits for, and what the scheduler knows of it."""

import queue
import time
from collections.abc import Iterator
from dataclasses import dataclass

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import DEADLINE_EXCEEDED

from ..api.requests import Sampling
from .kv_cache import Text
from .sampler import Sampler
from .text_stream import TextStream


@dataclass(frozen=True)
class Completion:
    """One answer. Its tokens are counted with the one that ended it.

    Times in seconds from submission: until it got a row, until its first token, until its last.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str  # stop or length
    reused_tokens: int
    queued_s: float
    first_token_s: float
    total_s: float


class Answer:
    """An answer that is being made: iterate over the pieces of its text, or wait for all of it."""

    def __init__(
        self,
        prompt: list[int],
        sampling: Sampling,
        sampler: Sampler,
        text: TextStream,
        timeout: float,
        pieces: bool = True,
    ) -> None:
        """
        Args:
            timeout: seconds from now; 0 for as long as it takes.
            pieces: whether anybody wants the text as it is made. If not, its caller sleeps until the end: to be woken
                at every token takes a CPU from the runtime's threads.
        """
        self.prompt, self.sampling, self.sampler, self.text = prompt, sampling, sampler, text
        self.submitted = time.monotonic()
        self._deadline = self.submitted + timeout if timeout else None
        self._timeout, self._pieces = timeout, pieces
        self.cancelled = False
        self.admitted = self.first_token = 0.0
        self.reused: int | None = None
        self.generated: list[int] = []
        self.row: Text | None = None
        self.completion: Completion | None = None
        self._events: queue.SimpleQueue[str | Completion | Exception] = queue.SimpleQueue()

    def __iter__(self) -> Iterator[str]:
        """The pieces of the text, as they are made. A caller that stops iterating frees its place.

        Raises:
            MlflowException: the time is over, or the engine was closed.
        """
        try:
            while not isinstance(event := self._next(), Completion):
                if isinstance(event, Exception):
                    raise event
                yield event
            self.completion = event
        finally:
            self.cancel()

    def wait(self) -> Completion:
        """The whole answer; raises as iterating does."""
        for _ in self:
            pass
        return self.completion

    def cancel(self) -> None:
        """Give up: the place is free at the next token."""
        self.cancelled = True

    def emit(self, event: str | Completion | Exception) -> None:
        """From the scheduler's thread: a piece of text, or the end."""
        if self._pieces or not isinstance(event, str):
            self._events.put(event)

    def _next(self) -> str | Completion | Exception:
        try:
            if self._deadline is None:
                return self._events.get()
            return self._events.get(timeout=max(0.0, self._deadline - time.monotonic()))
        except queue.Empty:
            raise MlflowException(
                f"no answer within {self._timeout:g} s, the model config's timeout: ask for fewer tokens, or raise it",
                error_code=DEADLINE_EXCEEDED,
            ) from None
