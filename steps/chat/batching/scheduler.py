"""Continuous batching: one thread runs the graph, any number of callers wait for their answers.

Between two decode steps, which take every answer one token further, a request that has come in gets a row, and at most
one chunk of a prompt is read. So a late request neither waits for the others to end nor stops them.
"""

import contextlib
import threading
import time
from collections import deque

import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_STATE, REQUEST_LIMIT_EXCEEDED

from ..runtime.concatenated import ConcatenatedSession
from ..runtime.decoder_session import DecoderSession
from ..settings import Settings
from .answer import Answer, Completion
from .kv_cache import Memory, common_length

_ALONE = 512  # tokens of a prompt in one chunk where nobody waits for a step
_WORTH_WAITING = 32  # tokens of a prefix that another request is reading just now


class Scheduler:
    """What the thread does. `put` and `close` are called by others."""

    def __init__(self, rows: DecoderSession, settings: Settings, ends: list[int]) -> None:
        self._rows, self._settings, self._ends = rows, settings, frozenset(ends)
        self.memory = Memory(rows, max(2, (settings.kv_cache_mb << 20) // rows.graph.token_bytes))
        self._switch = settings.longrope_switch
        # A graph that chooses LongRoPE's factors by position takes the long ones for a whole prompt or not at all.
        self._whole = isinstance(rows, ConcatenatedSession)
        self._changed = threading.Condition()
        self._waiting: deque[Answer] = deque()
        self._closed = False
        self._reading: list[Answer] = []  # prompts, in the order of their admission
        self._writing: list[Answer] = []

    def put(self, answer: Answer, wait: bool) -> None:
        """Queue a request, or refuse it."""
        with self._changed:
            self._drop_cancelled()
            while wait and len(self._waiting) >= self._settings.queue and not self._closed:
                self._changed.wait()
            if self._closed:
                raise MlflowException("the model was closed: load it again", error_code=INVALID_STATE)
            if len(self._waiting) >= self._settings.queue:
                raise MlflowException(
                    f"{len(self._waiting)} requests wait already, as many as the model config's queue allows: try "
                    "later",
                    error_code=REQUEST_LIMIT_EXCEEDED,
                )
            self._waiting.append(answer)
            self._changed.notify_all()

    def _drop_cancelled(self) -> None:
        """Under the lock."""
        if any(answer.cancelled for answer in self._waiting):
            self._waiting = deque(answer for answer in self._waiting if not answer.cancelled)
            self._changed.notify_all()

    def close(self) -> None:
        """Let the thread end after its present step."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def run(self) -> None:
        """Until closed: admit, read a chunk, write a token."""
        while self._wait():
            try:
                self._step()
            except Exception as error:  # of the runtime: those who were in the step fail, and the next are served
                self._fail(error)
        self._fail(MlflowException("the model was closed: load it again", error_code=INVALID_STATE))

    def _wait(self) -> bool:
        with self._changed:
            while not (self._closed or self._waiting or self._reading or self._writing):
                self._changed.wait()
            return not self._closed

    def _step(self) -> None:
        for answer in [*self._reading, *self._writing]:
            if answer.cancelled:
                self._end(answer)
        self._admit()
        if self._reading:
            self._read(self._reading[0])
        for group in self._groups():
            self._write(group)

    # --- Requests get rows --------------------------------------------------------------------------------------

    def _admit(self) -> None:
        with self._changed:
            self._drop_cancelled()
            waiting = [*self._waiting]
        for answer in waiting:
            if len(self.memory.active) >= self._settings.parallel:
                return
            if self._being_read(answer.prompt):
                continue  # until it can be copied
            room = min(
                len(answer.prompt) + answer.sampling.max_tokens, self._rows.graph.context_length, self.memory.budget
            )
            long = self._switch > 0 and len(answer.prompt) > self._switch
            row, error = None, None
            try:
                row = self.memory.admit(answer.prompt, room, long, reuse=not (long and self._whole))
            except Exception as found:  # it would be admitted again and again
                error = found
            if row is None and error is None:
                return  # first come, first served
            with self._changed:
                with contextlib.suppress(ValueError):  # given up meanwhile, and dropped by another caller's `put`
                    self._waiting.remove(answer)
                self._changed.notify_all()
            if error:
                answer.emit(_explained(error))
                continue
            answer.row, answer.reused, answer.admitted = row, len(row.tokens), time.monotonic()
            self._reading.append(answer)

    def _being_read(self, prompt: list[int]) -> bool:
        """Whether a request in front is reading much of the same prompt, an earlier choice of the same as a rule."""
        ready = None
        for other in self._reading:
            common = common_length(other.prompt[:-1], prompt[:-1])
            if common >= _WORTH_WAITING:
                ready = self.memory.prefix(prompt, other.row.long)[1] if ready is None else ready
                if common - ready >= _WORTH_WAITING:
                    return True
        return False

    # --- Reading prompts ----------------------------------------------------------------------------------------

    def _read(self, answer: Answer) -> None:
        """One chunk of the prompt. Where the graph can't give the last token's logits alone, a step reads that."""
        text = answer.row
        tokens = answer.prompt + answer.generated
        chooses = self._rows.graph.selects_logits
        end, past = len(tokens) - (not chooses), len(text.tokens)
        width = 0
        if text.long and self._whole:
            end, past = len(tokens), 0  # so that the last position is past the switch
            chunk = tokens
        else:
            size = self._settings.prefill_chunk if self._writing else _ALONE
            chunk = tokens[past : min(end, past + size)]
            width = self._switch + 1 if text.long else 0
        last, logits = past + len(chunk) >= end, ()
        if chunk:
            logits = self._rows.prefill(self.memory.row(text), chunk, past, width, logits=int(last and chooses))
            text.tokens[past:] = chunk
        if last:
            self._reading.remove(answer)
            self._writing.append(answer)
            if len(logits):
                self._take(answer, logits[0])
            else:
                text.tokens[len(tokens) - 1 :] = []

    # --- Writing answers ----------------------------------------------------------------------------------------

    def _groups(self) -> list[list[Answer]]:
        """Neighbours that may share a step: all of them, but for those on the two sides of LongRoPE's switch."""
        writing = sorted(self._writing, key=lambda answer: self.memory.row(answer.row))
        groups: list[list[Answer]] = []
        for answer in writing:
            row, long = self.memory.row(answer.row), answer.row.long
            last = groups[-1][-1].row if groups else None
            if last is None or self.memory.row(last) != row - 1 or last.long != long:
                groups.append([])
            groups[-1].append(answer)
        return groups

    def _write(self, group: list[Answer]) -> None:
        tokens = [(answer.generated or answer.prompt)[-1] for answer in group]
        lengths = [len(answer.row.tokens) + 1 for answer in group]
        width = self._switch + 1 if group[0].row.long else 0
        logits = self._rows.decode(self.memory.row(group[0].row), tokens, lengths, width)
        for answer, token in zip(group, tokens, strict=True):
            answer.row.tokens.append(token)  # all of them first: the end of one may move another's row
        for answer, row in zip(group, logits, strict=True):
            self._take(answer, row)

    def _take(self, answer: Answer, logits: np.ndarray) -> None:
        """Choose a token, show what can be shown of it, and see whether it was the last."""
        try:
            token = answer.sampler.choose(logits)
        except Exception as error:  # one request's, not the others'
            self._end(answer, error)
            return
        if not answer.generated:
            answer.first_token = time.monotonic()
        answer.generated.append(token)
        count = len(answer.generated)
        ended = token in self._ends
        piece = "" if ended else answer.text.add(token)
        full = count >= answer.sampling.max_tokens or len(answer.prompt) + count >= answer.row.reserved
        if ended or full or answer.text.stopped:
            piece += answer.text.rest()
        if piece:
            answer.emit(piece)
        if answer.text.stopped or ended or full:
            # The flavor calls an answer that has just the tokens it may have cut off, its end token included.
            reason = "length" if full and not answer.text.stopped else "stop"
            self._end(answer, reason=reason)
        elif len(answer.prompt) + count == self._switch + 1 and not answer.row.long:
            # Keys turned by the short factors are wrong from here on: read the text again with the long ones.
            answer.row.tokens.clear()
            answer.row.long = True
            self._writing.remove(answer)
            self._reading.append(answer)

    # --- The end ------------------------------------------------------------------------------------------------

    def _end(self, answer: Answer, error: Exception | None = None, reason: str = "") -> None:
        for list_ in (self._reading, self._writing):
            if answer in list_:
                list_.remove(answer)
        if error:
            answer.emit(_explained(error))  # first: whatever becomes of its row, nobody may wait for ever
        self.memory.retire(answer.row, keep=error is None)
        if reason:
            now, start = time.monotonic(), answer.submitted
            answer.emit(
                Completion(
                    answer.text.shown,
                    len(answer.prompt),
                    len(answer.generated),
                    reason,
                    answer.reused,
                    answer.admitted - start,
                    answer.first_token - start,
                    now - start,
                )
            )

    def _fail(self, error: Exception) -> None:
        """All that have a row fail; when the model is closed, those that wait do too."""
        for answer in [*self._reading, *self._writing]:
            with contextlib.suppress(Exception):
                self._end(answer, error)
        if self._closed:
            with self._changed:
                waiting, self._waiting = self._waiting, deque()
            for answer in waiting:
                answer.emit(error)


def _explained(error: Exception) -> Exception:
    if isinstance(error, MlflowException):
        return error
    return MlflowException(
        f"the runtime failed: {type(error).__name__}: {' '.join(str(error).split())}", error_code=INTERNAL_ERROR
    )
