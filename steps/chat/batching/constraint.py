"""Constrained decoding: keep an answer within a JSON schema or a regular expression, with llguidance.

A grammar comes from a stranger, so it has limits: its size (api.response_format), the work of compiling it and of each
step (llguidance's fuel), and the seconds of both before the answer begins. Compiling runs in the caller's thread or in
a thread of its own, and holds neither the engine's thread nor Python's interpreter lock.
"""

import json
import re
import threading
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from ..api.response_format import RegexFormat, ResponseFormat
from ..errors import ModelError

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

# JSON allows any amount of white space, and a small model may never stop writing it. So allow one character at most.
_JSON: "JsonCompileOptions" = {"whitespace_flexible": True, "whitespace_pattern": r"[ \n]?"}
_LIMITS = LLParserLimits(
    initial_lexer_fuel=1_000_000,  # about 20 ms of compiling a regular expression
    step_lexer_fuel=100_000,  # about 7 ms a token
    step_max_items=20_000,
    max_grammar_size=200_000,
    verbose_errors=False,  # they would repeat the grammar
)
_SECONDS = 2.0  # for compiling, and for the first token's mask


class Constraint:
    """The state of one answer within its response format."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def allowed(self, vocab_size: int) -> np.ndarray:
        """Return which tokens may come next: bool [vocab_size].

        Raises:
            ModelError: the format needs more work for this token than a step may take.
        """
        mask = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        if self._matcher.is_error():
            raise ModelError("response_format: it is too complex: make it shorter", param="response_format")
        return np.unpackbits(mask, count=vocab_size, bitorder="little").astype(bool)

    def accept(self, token: int) -> int:
        """Go on to the state after an allowed token, and return the token."""
        self._matcher.consume_token(token)
        return token


class Constraints:
    """Makes the constraints for one tokenizer."""

    def __init__(self, folder: Path, vocab_size: int, end_tokens: list[int], seconds: float = _SECONDS) -> None:
        """
        Args:
            folder: a converted folder, with its tokenizer.json.
            seconds: the longest time that compiling one format may take.
        """
        self._path, self._vocab_size, self._end_tokens = folder / "tokenizer.json", vocab_size, end_tokens
        self._seconds = seconds
        self._last: tuple[ResponseFormat, LLMatcher] | None = None  # the `n` answers of a request have one format

    def compile(self, response_format: ResponseFormat) -> Constraint:
        """Return the constraint of a response format.

        Raises:
            ModelError: llguidance does not support the schema or the pattern, or it takes too long.
        """
        last = self._last
        if last is None or last[0] is not response_format:
            last = self._last = (response_format, self._matcher(response_format))
        return Constraint(last[1].deep_copy())

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes that a token stands for. They may be a part of a character only."""
        return self._tokenizer.decode_bytes([token]) if token < self._vocab_size else b""

    def _matcher(self, response_format: ResponseFormat) -> LLMatcher:
        """Return the matcher of a format at its beginning. Give up after some seconds, and let the thread end alone."""
        tokenizer, made = self._tokenizer, list[LLMatcher]()
        try:
            grammar = _grammar(response_format)
        except ValueError as error:
            raise _unsupported(response_format, str(error)) from None

        def make() -> None:
            matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=_LIMITS)
            if not matcher.is_error():
                matcher.compute_bitmask()
            made.append(matcher)

        thread = threading.Thread(target=make, name="chat-grammar", daemon=True)
        thread.start()
        thread.join(self._seconds)
        if not made:
            raise _unsupported(response_format, f"it takes longer than {self._seconds:g} s to compile")
        if reason := made[0].get_error():
            raise _unsupported(response_format, reason)
        return made[0]

    @cached_property
    def _tokenizer(self) -> LLTokenizer:
        """The tokenizer as llguidance has it: made at the first use, because 200,000 tokens take a second."""
        return LLTokenizer(str(self._path), n_vocab=self._vocab_size, eos_token=self._end_tokens)


def _grammar(response_format: ResponseFormat) -> str:
    if isinstance(response_format, RegexFormat):
        return LLMatcher.grammar_from_regex(response_format.pattern)
    return LLMatcher.grammar_from_json_schema(json.dumps(response_format.schema), defaults=_JSON)


def _unsupported(response_format: ResponseFormat, reason: str) -> ModelError:
    """Return an error with the beginning of llguidance's reason: the rest repeats the pattern or the schema."""
    kind = "schema"
    if isinstance(response_format, RegexFormat):
        kind = "pattern"
        lines = [
            line.removeprefix("error: ") for line in reason.splitlines() if line.startswith(("error:", "it takes"))
        ]
        reason = lines[0] if lines else "it is not valid, or too large"
    beginning = re.split(r"[:'\"`]", reason, maxsplit=1)[0].strip()[:120]
    return ModelError(f"response_format: the {kind} is not supported: {beginning}", param="response_format")
