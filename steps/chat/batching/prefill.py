"""Read a prompt in chunks, so that the decode steps of the others wait for one chunk at most.

    prompt   t t t t t t t t t t t t t t t t t t t t
             cached    |  chunk  |  chunk  |  last chunk ─► logits of the last token

A prompt whose own log probabilities are wanted reuses nothing of the cache, and its chunks are small, because the
logits of each of its tokens are in memory.
"""

from dataclasses import dataclass

import numpy as np

from ..runtime.decoder_session import DecoderSession
from ..settings import Settings
from .generation import Generation
from .kv_cache import CachedSequence
from .logprobs import prompt_logprobs
from .running import RunningGeneration

_CHUNK_ALONE = 512  # tokens of a prompt in one chunk while nothing is decoding
_CHUNK_SCORED = 32  # tokens of a prompt whose own log probabilities are wanted: each token's logits are in memory
_NO_LOGITS = np.empty((0, 0), np.float32)


@dataclass(frozen=True)
class _Chunk:
    """The tokens that one prefill appends to the first `past` tokens of a row."""

    tokens: list[int]
    past: int
    mask_length: int
    last: bool  # the prompt is complete afterwards


class ChunkedPrefill:
    """Prefills prompts chunk by chunk. The engine's thread uses it."""

    def __init__(self, session: DecoderSession, settings: Settings) -> None:
        self._session, self._settings = session, settings

    def step(self, running: RunningGeneration, alone: bool) -> tuple[bool, np.ndarray]:
        """Prefill the next chunk of a prompt.

        Args:
            alone: whether no other generation is decoding.

        Returns:
            Whether that was the last chunk, and the logits of the prompt's last token, float32 [1, vocabulary]. If they
            are empty, a decode step has to read the last token.
        """
        chunk, sequence = self._next_chunk(running, alone), running.sequence
        logits = _NO_LOGITS
        if chunk.tokens:
            scored = _lacks_scores(running.generation)
            wanted = len(chunk.tokens) if scored else int(chunk.last and self._session.graph.selects_logits)
            logits = self._session.prefill(sequence.row, chunk.tokens, chunk.past, chunk.mask_length, wanted)
            sequence.tokens[chunk.past :] = chunk.tokens
            if scored:
                _score(running.generation, logits, chunk.past)
                logits = logits[-1:] if self._session.graph.selects_logits else _NO_LOGITS
        return chunk.last, logits

    def mask_length(self, sequence: CachedSequence) -> int:
        """Return the length of attention mask that makes a graph take LongRoPE's long factors; 0 for the short ones."""
        return self._settings.longrope_switch + 1 if sequence.long_factors else 0

    def _next_chunk(self, running: RunningGeneration, alone: bool) -> _Chunk:
        tokens, sequence = running.tokens, running.sequence
        if sequence.long_factors and self._session.long_prompts_in_one_run:
            return _Chunk(tokens, past=0, mask_length=0, last=True)
        # A graph that can't select the last token's logits would compute those of the whole chunk.
        end = len(tokens) if self._session.graph.selects_logits else len(tokens) - 1
        past = len(sequence.tokens)
        size = _CHUNK_ALONE if alone else self._settings.prefill_chunk
        if _lacks_scores(running.generation):
            size = min(size, _CHUNK_SCORED)
        chunk = tokens[past : min(end, past + size)]
        return _Chunk(chunk, past, self.mask_length(sequence), last=past + len(chunk) >= end)


def scores_prompt(generation: Generation) -> bool:
    """Return whether the caller wants the log probabilities of the prompt's own tokens."""
    return generation.sampling.prompt_logprobs is not None


def _lacks_scores(generation: Generation) -> bool:
    """Return whether log probabilities of the prompt are wanted and not complete yet. The first token has none."""
    return scores_prompt(generation) and len(generation.prompt_logprobs) < len(generation.prompt) - 1


def _score(generation: Generation, logits: np.ndarray, past: int) -> None:
    """Add the log probabilities of the tokens of the prompt that a chunk's logits predict."""
    predicted = generation.prompt[past + 1 : past + 1 + len(logits)]
    alternatives = generation.sampling.prompt_logprobs or 0
    generation.prompt_logprobs += prompt_logprobs(logits[: len(predicted)], predicted, alternatives)
