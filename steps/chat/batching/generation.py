"""One answer in the making: the handle that its caller holds, and what it holds when it is complete."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from mlflow.protos.databricks_pb2 import CANCELLED, DEADLINE_EXCEEDED

from ..api.sampling import Sampling
from ..errors import ModelError
from .logprobs import TokenLogprob
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
    logprobs: tuple[TokenLogprob, ...] = ()  # of the tokens whose text is in `text`, if the sampling asks for them
    end_logprob: TokenLogprob | None = None  # of the end token, if one ended the answer
    prompt_logprobs: tuple[TokenLogprob, ...] = ()  # of the prompt's tokens after the first, if it asks for them
    stopped_by: str = ""  # the stop string that ended the answer


@dataclass(frozen=True)
class Piece:
    """A piece of an answer's text or thought, and the log probabilities of the text's tokens that came with it."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    is_thought: bool = False


Event = Piece | Completion | Exception


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
        self.prompt_logprobs: list[TokenLogprob] = []
        self.completion: Completion | None = None
        self.finished: Completion | None = None  # as soon as the engine has it, before the caller reads it
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._put: Callable[[Event], None] = self._events.put
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[str]:
        """Yield the pieces of the text when they are ready. A caller that stops iterating cancels the generation.

        Raises:
            ModelError: the timeout is over, the runtime failed, or the engine was closed.
        """
        try:
            while self.completion is None:
                piece = self._receive()
                if piece is not None and piece.text and not piece.is_thought:
                    yield piece.text
        finally:
            self.cancel()

    def wait(self) -> Completion:
        """Return the complete answer.

        Raises:
            ModelError: as for iterating.
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

    def abort(self) -> None:
        """Give the answer up in place of its caller, who hears of it at once. Any thread may call this."""
        self.cancel()
        self.emit(ModelError("the answer was given up", error_code=CANCELLED))

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Let a function have every event from the first one on: pieces, then the completion or an exception.

        The engine's thread calls it, so it must be quick. Neither iterate nor wait afterwards.
        """
        with self._lock:
            while not self._events.empty():
                listener(self._events.get())
            self._put = listener

    def emit(self, event: Event) -> None:
        """Send the caller a piece of text, or the end. The engine's thread calls this."""
        if isinstance(event, Completion):
            self.finished = event
        if self._stream or not isinstance(event, Piece):
            with self._lock:
                self._put(event)

    def remaining(self) -> float | None:
        """Return the seconds until the timeout is over, at least 0; None if there is none."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def timeout_error(self) -> ModelError:
        """Return the error of a caller whose timeout is over."""
        return ModelError(
            f"no answer within {self._timeout:g} s, the model config's timeout: ask for fewer tokens, or raise timeout",
            error_code=DEADLINE_EXCEEDED,
        )

    def _receive(self) -> Piece | None:
        """Wait for the next event, and return it if it is a piece of text."""
        try:
            event = self._events.get(timeout=self.remaining())
        except queue.Empty:
            raise self.timeout_error() from None
        if isinstance(event, Exception):
            raise event
        if isinstance(event, Completion):
            self.completion = event
            return None
        return event


def interleaved(
    generations: list[Generation], wake: Callable[[], None] | None = None
) -> Iterator[tuple[int, Piece | Completion] | None]:
    """Yield the pieces and the completions of several generations when they are ready, with their numbers.

    Args:
        wake: called for each event, by the engine's thread. With it nothing here waits: None says that there is no
            event now.

    Raises:
        ModelError: the timeout is over, the runtime failed, or the engine was closed.
    """
    events: queue.SimpleQueue[tuple[int, Event]] = queue.SimpleQueue()

    def put(index: int, event: Event) -> None:
        events.put((index, event))
        if wake:
            wake()

    for index, generation in enumerate(generations):
        generation.listen(partial(put, index))
    running = set(range(len(generations)))
    while running:
        first = generations[min(running)]  # all were submitted together, so its deadline is the first one
        try:
            index, event = events.get(not wake, first.remaining())
        except queue.Empty:
            if not wake or first.remaining() == 0:
                raise first.timeout_error() from None
            yield None
            continue
        if isinstance(event, Exception):
            raise event
        if isinstance(event, Completion):
            running.remove(index)
        yield index, event
