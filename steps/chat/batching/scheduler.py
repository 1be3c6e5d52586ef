"""Continuous batching: one thread runs the graph, and any number of callers wait for their generations.

Each step drops what was cancelled, admits what waits, prefills at most one chunk of one prompt, and decodes one token
of every other generation. So a late request does not wait for the others to end, and stops them for one chunk at most:

    step       1          2          3            4          5
    A       decode     decode     decode, end
    B       decode     decode     decode       decode     decode
    C       arrives    prefill    prefill*     decode     decode       * the last chunk gives the first token
    D                  arrives    has a row    prefill    prefill

Invariant: a generation is waiting (RequestQueue), prefilling or decoding, and has a row from its admission to its end.
Only this thread touches the session, the KV cache and the two lists, so they need no lock.
Rows move when a generation is admitted or ends. A step therefore decodes all groups before it samples from any of them.
"""

import contextlib
import time

import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR

from ..errors import ModelError
from ..runtime.decoder_session import DecoderSession
from ..settings import Settings
from .generation import Generation
from .kv_cache import CachedSequence, KVCache, common_length
from .prefill import ChunkedPrefill, scores_prompt
from .request_queue import RequestQueue, closed_error
from .running import RunningGeneration

_MIN_SHARED = 32  # tokens of a prefix that another generation is prefilling, which are worth the wait


class Scheduler:
    """The work of the engine's thread. Other threads call `submit` and `close` only."""

    def __init__(self, session: DecoderSession, settings: Settings, end_tokens: list[int]) -> None:
        self._session, self._settings, self._end_tokens = session, settings, frozenset(end_tokens)
        self.cache = KVCache(session, max(2, (settings.kv_cache_mb << 20) // session.graph.token_bytes))
        self._prefill_chunks = ChunkedPrefill(session, settings)
        self._queue = RequestQueue(settings.queue)
        self._prefilling: list[RunningGeneration] = []  # in the order of their admission
        self._decoding: list[RunningGeneration] = []

    def submit(self, generation: Generation, wait: bool) -> None:
        """Queue a generation. See RequestQueue.put."""
        self._queue.put(generation, wait)

    @property
    def waiting(self) -> int:
        """How many generations wait for a row. Any thread may ask."""
        return len(self._queue.waiting())

    def close(self) -> None:
        """Let the thread end after its present step."""
        self._queue.close()

    def run(self) -> None:
        """Take steps until the scheduler is closed. Then fail everything that is not complete."""
        while self._queue.wait_for_work(busy=bool(self._prefilling or self._decoding)):
            try:
                self._step()
            except Exception as error:  # the runtime failed: end everything that was in the step, and serve the next
                self._fail_running(error)
        self._fail_running(closed_error())
        for generation in self._queue.drain():
            generation.emit(closed_error())

    def _step(self) -> None:
        for running in [*self._prefilling, *self._decoding]:
            if running.generation.cancelled:
                self._release(running)
        self._admit()
        if self._prefilling:
            self._prefill(self._prefilling[0])
        self._decode()

    # --- Admission ----------------------------------------------------------------------------------------------

    def _admit(self) -> None:
        """Give rows to the generations that wait, in their order, as long as there is room."""
        for generation in self._queue.waiting():
            if len(self.cache.active) >= self._settings.parallel:
                return
            if not scores_prompt(generation) and self._waits_for_shared_prefix(generation.prompt):
                continue
            try:
                sequence = self._admit_to_cache(generation)
            except Exception as error:  # this generation fails; it would fail again in every step
                self._queue.remove(generation)
                generation.emit(_as_mlflow_exception(error))
                continue
            if sequence is None:
                return
            self._queue.remove(generation)
            running = RunningGeneration(generation, sequence, len(sequence.tokens), time.monotonic())
            self._prefilling.append(running)

    def _admit_to_cache(self, generation: Generation) -> CachedSequence | None:
        length = len(generation.prompt)
        most = min(length + generation.sampling.max_tokens, self._session.graph.context_length, self.cache.budget)
        long_factors = 0 < self._settings.longrope_switch < length
        in_one_run = long_factors and self._session.long_prompts_in_one_run
        if in_one_run and scores_prompt(generation):
            raise ModelError(
                f"the prompt has {length} tokens, and this model returns no log probabilities for prompts of more than "
                f"{self._settings.longrope_switch} tokens: shorten it, or leave echo out",
                param="echo",
            )
        reuse = not (in_one_run or scores_prompt(generation))
        return self.cache.admit(generation.prompt, most, long_factors, reuse)

    def _waits_for_shared_prefix(self, prompt: list[int]) -> bool:
        """Return whether a prefill in progress will leave much of this prompt in the cache.

        That is the rule for the second choice of one request.
        """
        cached = None
        for other in self._prefilling:
            common = common_length(other.generation.prompt[:-1], prompt[:-1])
            if common >= _MIN_SHARED:
                if cached is None:
                    cached = self.cache.longest_prefix(prompt, other.sequence.long_factors)[1]
                if common - cached >= _MIN_SHARED:
                    return True
        return False

    # --- Prefill ------------------------------------------------------------------------------------------------

    def _prefill(self, running: RunningGeneration) -> None:
        """Prefill one chunk. After the last chunk, take the first token of the answer, or let a decode step do it."""
        last, logits = self._prefill_chunks.step(running, alone=not self._decoding)
        if not last:
            return
        if not running.generation.sampling.max_tokens:
            self._finish(running, "length")
            return
        self._prefilling.remove(running)
        self._decoding.append(running)
        if len(logits):
            self._take_token(running, logits[0])
        else:  # a decode step reads the last token, and gives its logits
            del running.sequence.tokens[running.length - 1 :]

    # --- Decode -------------------------------------------------------------------------------------------------

    def _decode(self) -> None:
        """Take every decoding generation one token further."""
        groups = self._decode_groups()
        logits = [self._decode_group(group) for group in groups]  # all of them before any row moves
        for group, rows in zip(groups, logits, strict=True):
            for running, row in zip(group, rows, strict=True):
                self._take_token(running, row)

    def _decode_groups(self) -> list[list[RunningGeneration]]:
        """Return the decoding generations in groups that share a run: neighbouring rows, the same LongRoPE factors."""
        groups: list[list[RunningGeneration]] = []
        previous: CachedSequence | None = None
        for running in sorted(self._decoding, key=lambda running: running.sequence.row):
            sequence = running.sequence
            if previous is None or previous.row != sequence.row - 1 or previous.long_factors != sequence.long_factors:
                groups.append([])
            groups[-1].append(running)
            previous = sequence
        return groups

    def _decode_group(self, group: list[RunningGeneration]) -> np.ndarray:
        """Append the last token of each generation to its row, and return the logits: float32 [rows, vocabulary]."""
        first, tokens = group[0].sequence, [running.last_token for running in group]
        lengths = [len(running.sequence.tokens) + 1 for running in group]
        logits = self._session.decode(first.row, tokens, lengths, self._prefill_chunks.mask_length(first))
        for running, token in zip(group, tokens, strict=True):
            running.sequence.tokens.append(token)
        return logits

    def _take_token(self, running: RunningGeneration, logits: np.ndarray) -> None:
        """Sample the next token, add it to the answer, and end the generation if the answer is complete."""
        try:
            token = running.generation.sampler.choose(logits)
        except Exception as error:  # this generation fails, and not the others
            self._fail(running, error)
            return
        finish_reason = running.add(token, is_end=self._is_end(token, running.generation))
        if finish_reason:
            self._finish(running, finish_reason)
        elif running.length == self._settings.longrope_switch + 1 and not running.sequence.long_factors:
            self._prefill_with_long_factors(running)

    def _is_end(self, token: int, generation: Generation) -> bool:
        sampling = generation.sampling
        return token in sampling.stop_token_ids or (token in self._end_tokens and not sampling.ignore_eos)

    def _prefill_with_long_factors(self, running: RunningGeneration) -> None:
        """Start over with all tokens so far: from this length on, keys of LongRoPE's short factors are wrong."""
        running.sequence.tokens.clear()
        running.sequence.long_factors = True
        self._decoding.remove(running)
        self._prefilling.append(running)

    # --- The end ------------------------------------------------------------------------------------------------

    def _finish(self, running: RunningGeneration, finish_reason: str) -> None:
        try:
            self._release(running)
        finally:
            running.generation.emit(running.completion(finish_reason))

    def _fail(self, running: RunningGeneration, error: Exception) -> None:
        running.generation.emit(_as_mlflow_exception(error))  # first, or a second error would leave the caller waiting
        self._release(running, keep=False)

    def _release(self, running: RunningGeneration, keep: bool = True) -> None:
        """Free the row of a generation, or keep its tokens in it for reuse."""
        for running_list in (self._prefilling, self._decoding):
            if running in running_list:
                running_list.remove(running)
        self.cache.retire(running.sequence, keep)

    def _fail_running(self, error: Exception) -> None:
        for running in [*self._prefilling, *self._decoding]:
            with contextlib.suppress(Exception):  # every caller must hear of the error
                self._fail(running, error)


def _as_mlflow_exception(error: Exception) -> Exception:
    if isinstance(error, MlflowException):
        return error
    reason = " ".join(str(error).split())
    return ModelError(f"the runtime failed: {type(error).__name__}: {reason}", error_code=INTERNAL_ERROR)
