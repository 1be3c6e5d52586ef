"""A generation that has a row of the KV cache."""

import time
from dataclasses import dataclass, field

from .generation import Completion, Generation, Piece
from .kv_cache import CachedSequence
from .logprobs import TokenLogprob


@dataclass(eq=False)
class RunningGeneration:
    """A generation, the sequence in its row, and its times (time.monotonic)."""

    generation: Generation
    sequence: CachedSequence
    reused_tokens: int
    admitted: float
    first_token: float = 0.0
    starts: list[int] = field(default_factory=list)  # characters of the answer before each token, for logprobs
    sent: int = 0  # tokens whose log probabilities the caller has

    @property
    def tokens(self) -> list[int]:
        """The prompt, and the answer's tokens so far."""
        return self.generation.prompt + self.generation.generated

    @property
    def last_token(self) -> int:
        """The token that the next decode step reads."""
        return (self.generation.generated or self.generation.prompt)[-1]

    @property
    def length(self) -> int:
        """Tokens of the prompt and of the answer so far."""
        return len(self.generation.prompt) + len(self.generation.generated)

    def add(self, token: int, is_end: bool) -> str | None:
        """Add a token to the answer, and send the caller the text that may be shown.

        Returns:
            Why the answer is complete, "stop" or "length", or None if it goes on.
        """
        generation, text = self.generation, self.generation.text
        if not generation.generated:
            self.first_token = time.monotonic()
        generation.generated.append(token)
        if not is_end and generation.sampling.logprobs is not None:
            self.starts.append(text.length)
        shown_thought = len(text.thought)
        piece = "" if is_end else text.add(token)
        full = len(generation.generated) >= generation.sampling.max_tokens or self.length >= self.sequence.reserved
        complete = is_end or full or text.stopped
        if complete:
            piece += text.rest()
        if thought := text.thought[shown_thought:]:
            generation.emit(Piece(thought, is_thought=True))
        self._emit(piece)
        if not complete:
            return None
        return "stop" if is_end or text.stopped else "length"

    def _emit(self, piece: str) -> None:
        """Send the caller a piece, with the log probabilities of the tokens since the last one."""
        if piece:
            logprobs = self._shown_logprobs()[self.sent :]
            self.sent += len(logprobs)
            self.generation.emit(Piece(piece, tuple(logprobs)))

    def _shown_logprobs(self) -> list[TokenLogprob]:
        """Return the log probabilities of the text's tokens.

        Without those of the thought, of end tokens, and of tokens behind the beginning of a stop.
        """
        text, logprobs = self.generation.text, self.generation.sampler.logprobs
        tokens = [*zip(self.starts, logprobs, strict=False)]  # an end token has a log probability and no start
        shown = tokens[text.thought_tokens or 0 :]
        return [logprob for start, logprob in shown if not text.stopped or start < text.length]

    def completion(self, finish_reason: str) -> Completion:
        """Return the complete answer."""
        start, generation = self.generation.submitted, self.generation
        return Completion(
            text=generation.text.shown,
            prompt_tokens=len(generation.prompt),
            completion_tokens=len(generation.generated),
            finish_reason=finish_reason,
            reused_tokens=self.reused_tokens,
            queued_s=self.admitted - start,
            first_token_s=(self.first_token or time.monotonic()) - start,
            total_s=time.monotonic() - start,
            thought=generation.text.thought,
            thought_tokens=generation.text.thought_tokens,
            logprobs=tuple(self._shown_logprobs()),
            end_logprob=next(iter(generation.sampler.logprobs[len(self.starts) :]), None),
            prompt_logprobs=tuple(generation.prompt_logprobs),
            stopped_by=generation.text.stopped_by,
        )
