"""Guided decoding: the tokens that keep an answer within a JSON schema or a regular expression, by llguidance."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from mlflow.exceptions import MlflowException

# At most one space or line break where JSON allows any number, or a small model may go on with them for ever.
_JSON = {"whitespace_flexible": True, "whitespace_pattern": r"[ \n]?"}


class Grammars:
    """Guides for one tokenizer."""

    def __init__(self, folder: Path, vocabulary: int, ends: list[int]) -> None:
        """
        Args:
            ends: the tokens that end an answer.
        """
        self._path, self._vocabulary, self._ends = folder / "tokenizer.json", vocabulary, ends
        self._tokenizer: LLTokenizer | None = None  # takes a second for 200,000 tokens, and few requests need it

    def guide(self, form: tuple[str, Any]) -> "Guide":
        """What keeps an answer to a form.

        Args:
            form: ("json_schema", the schema) or ("regex", the pattern).

        Raises:
            MlflowException: the schema or the pattern is none that llguidance knows.
        """
        if self._tokenizer is None:
            self._tokenizer = LLTokenizer(str(self._path), n_vocab=self._vocabulary, eos_token=self._ends)
        kind, value = form
        try:
            grammar = (
                LLMatcher.grammar_from_regex(value)
                if kind == "regex"
                else LLMatcher.grammar_from_json_schema(json.dumps(value), defaults=_JSON)
            )
        except ValueError as error:
            raise _refused(kind, str(error)) from None
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0)
        if error := matcher.get_error():
            raise _refused(kind, error)
        return Guide(matcher)


class Guide:
    """The state of one answer within its grammar."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def allowed(self, vocabulary: int) -> np.ndarray:
        """Which tokens may come next: bool [vocabulary]."""
        mask = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        return np.unpackbits(mask, count=vocabulary, bitorder="little").astype(bool)

    def accept(self, token: int) -> None:
        """Go on by a token that was allowed."""
        self._matcher.consume_token(token)


def _refused(kind: str, error: str) -> MlflowException:
    what = "pattern" if kind == "regex" else "schema"
    return MlflowException.invalid_parameter_value(
        f"response_format: the {what} cannot be followed: {' '.join(error.split())[:200]}"
    )
