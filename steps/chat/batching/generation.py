"""One answer in the making: the handle that its caller holds, and what it holds when it is complete."""

import queue
import time
from collections.abc import Iterator
from dataclasses import dataclass

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import DEADLINE_EXCEEDED

from ..api.requests import Sampling
from .sampler import Sampler
from .text_stream import TextStream


@dataclass(frozen=True)
class Completion:
    """A complete answer. Token counts include the end token. Times are seconds after the submission."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str  # "stop" or "length"
    reused_tokens: int  # tokens of the prompt that the prompt cache held
    queued_s: float  # until it got a row of the KV cache
    first_token_s: float
    total_s: float
    thought: str = ""  # of a reasoning model; it is not part of the text
    thought_tokens: int | None = None  # among the completion's; None for a model without thoughts


class ThoughtPiece(str):
    """A piece of the thought, among the pieces of the text: the caller shows it elsewhere."""


class Generation:
    """An answer in the making. Iterate over the pieces of its text, or wait for the whole answer."""

    def __init__(
        self,
        prompt: list[int],
        sampling: Sampling,
        sampler: Sampler,
        text: TextStream,
        timeout: float,
        stream: bool = True,
    ) -> None:
        """
        Args:
            prompt: tokens.
            timeout: seconds from now; 0 for no limit.
            stream: whether the caller wants the text piece by piece. If not, the caller sleeps until the end. A caller
                that wakes at every token takes a CPU from the runtime's threads.
        """
        self.prompt, self.sampling, self.sampler, self.text = prompt, sampling, sampler, text
        self.submitted = time.monotonic()
        self._deadline = self.submitted + timeout if timeout else None
        self._timeout, self._stream = timeout, stream
        self.cancelled = False
        self.generated: list[int] = []  # tokens
        self.completion: Completion | None = None
        self._events: queue.SimpleQueue[str | Completion | Exception] = queue.SimpleQueue()

    def __iter__(self) -> Iterator[str]:
        """Yield the pieces of the thought and the text when they are ready. A caller that stops iterating cancels both.

        Raises:
            MlflowException: the timeout is over, the runtime failed, or the engine was closed.
        """
        try:
            while self.completion is None:
                piece = self._receive()
                if piece is not None:
                    yield piece
        finally:
            self.cancel()

    def wait(self) -> Completion:
        """Return the complete answer.

        Raises:
            MlflowException: as for iterating.
        """
        try:
            while self.completion is None:
                self._receive()
            return self.completion
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Give the answer up. Its row of the KV cache is free before the next token."""
        self.cancelled = True

    def emit(self, event: str | Completion | Exception) -> None:
        """Send the caller a piece of text, or the end. The engine's thread calls this."""
        if self._stream or not isinstance(event, str):
            self._events.put(event)

    def _receive(self) -> str | None:
        """Wait for the next event, and return it if it is a piece of text."""
        try:
            timeout = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
            event = self._events.get(timeout=timeout)
        except queue.Empty:
            raise MlflowException(
                f"no answer within {self._timeout:g} s, the model config's timeout: ask for fewer tokens, or raise "
                "timeout",
                error_code=DEADLINE_EXCEEDED,
            ) from None
        if isinstance(event, Exception):
            raise event
        if isinstance(event, Completion):
            self.completion = event
            return None
        return event
