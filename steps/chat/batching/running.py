"""A generation that has a row of the KV cache."""

import time
from dataclasses import dataclass

from .generation import Completion, Generation, ThoughtPiece
from .kv_cache import CachedSequence


@dataclass(eq=False)
class RunningGeneration:
    """A generation, the sequence in its row, and its times (time.monotonic)."""

    generation: Generation
    sequence: CachedSequence
    reused_tokens: int
    admitted: float
    first_token: float = 0.0

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
        shown_thought = len(text.thought)
        piece = "" if is_end else text.add(token)
        full = len(generation.generated) >= generation.sampling.max_tokens or self.length >= self.sequence.reserved
        complete = is_end or full or text.stopped
        if complete:
            piece += text.rest()
        if thought := text.thought[shown_thought:]:
            generation.emit(ThoughtPiece(thought))
        if piece:
            generation.emit(piece)
        if not complete:
            return None
        # An end token at max_tokens gives "length" here, because it does so in MLflow's transformers flavor.
        return "length" if full and not text.stopped else "stop"

    def completion(self, finish_reason: str) -> Completion:
        """Return the complete answer."""
        start = self.generation.submitted
        return Completion(
            text=self.generation.text.shown,
            prompt_tokens=len(self.generation.prompt),
            completion_tokens=len(self.generation.generated),
            finish_reason=finish_reason,
            reused_tokens=self.reused_tokens,
            queued_s=self.admitted - start,
            first_token_s=self.first_token - start,
            total_s=time.monotonic() - start,
            thought=self.generation.text.thought,
            thought_tokens=self.generation.text.thought_tokens,
        )
