"""Constrained decoding: keep an answer within a JSON schema or a regular expression, with llguidance."""

import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from mlflow.exceptions import MlflowException

from ..api.response_format import RegexFormat, ResponseFormat

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

# JSON allows any amount of white space, and a small model may never stop writing it. So allow one character at most.
_JSON: "JsonCompileOptions" = {"whitespace_flexible": True, "whitespace_pattern": r"[ \n]?"}


class Constraint:
    """The state of one answer within its response format."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def allowed(self, vocab_size: int) -> np.ndarray:
        """Return which tokens may come next: bool [vocab_size]."""
        mask = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        return np.unpackbits(mask, count=vocab_size, bitorder="little").astype(bool)

    def accept(self, token: int) -> int:
        """Go on to the state after an allowed token, and return the token."""
        self._matcher.consume_token(token)
        return token


class Constraints:
    """Makes the constraints for one tokenizer."""

    def __init__(self, folder: Path, vocab_size: int, end_tokens: list[int]) -> None:
        """
        Args:
            folder: a converted folder, with its tokenizer.json.
        """
        self._path, self._vocab_size, self._end_tokens = folder / "tokenizer.json", vocab_size, end_tokens

    def compile(self, response_format: ResponseFormat) -> Constraint:
        """Return the constraint of a response format.

        Raises:
            MlflowException: llguidance does not support the schema or the pattern.
        """
        try:
            grammar = _grammar(response_format)
        except ValueError as error:
            raise _unsupported(response_format, str(error)) from None
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0)
        if reason := matcher.get_error():
            raise _unsupported(response_format, reason)
        return Constraint(matcher)

    @cached_property
    def _tokenizer(self) -> LLTokenizer:
        """The tokenizer as llguidance has it: made at the first use, because 200,000 tokens take a second."""
        return LLTokenizer(str(self._path), n_vocab=self._vocab_size, eos_token=self._end_tokens)


def _grammar(response_format: ResponseFormat) -> str:
    if isinstance(response_format, RegexFormat):
        return LLMatcher.grammar_from_regex(response_format.pattern)
    return LLMatcher.grammar_from_json_schema(json.dumps(response_format.schema), defaults=_JSON)


def _unsupported(response_format: ResponseFormat, reason: str) -> MlflowException:
    kind = "pattern" if isinstance(response_format, RegexFormat) else "schema"
    return MlflowException.invalid_parameter_value(
        f"response_format: the {kind} is not supported: {' '.join(reason.split())[:200]}"
    )
