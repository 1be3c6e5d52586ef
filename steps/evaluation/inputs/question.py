"""One question of an evaluation set, and what makes an answer to it wrong.

| kind of match | the answer is right if |
| --- | --- |
| exact (the default) | it is the expected text; white space around it does not count |
| contains | the expected text is in it; upper and lower case do not count |
| regex | Python's `re` finds the expected expression in it |
| choice | the expected choice is the first of the question's `choices` that is in it as a word |
| json_schema | it is JSON that fits the expected schema (JSON Schema 2020-12); it may be fenced as code |
| numeric | its last number is the expected number, within the question's `tolerance` (0) |
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from steps.evaluation.inputs.reading import Messages

_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_FENCE = re.compile(r"^```\w*\n(.*?)\n?```$", re.DOTALL)


@dataclass(frozen=True)
class Question:
    """A conversation that ends with a question, and what counts as a right answer."""

    messages: Messages
    expected: Any  # text; a number for `numeric`; an object for `json_schema`
    kind: str = "exact"
    choices: tuple[str, ...] = ()
    tolerance: float = 0.0

    @property
    def text(self) -> str:
        """The text of the last message."""
        return self.messages[-1]["content"]

    @property
    def expected_text(self) -> str:
        """The expected answer as text: a number or a schema becomes JSON."""
        return self.expected if isinstance(self.expected, str) else json.dumps(self.expected, ensure_ascii=False)

    def mistake(self, answer: str) -> str:
        """Return why an answer is wrong, in words; empty if it is right."""
        return _MISTAKES[self.kind](self, answer.strip())


def _exact(question: Question, answer: str) -> str:
    expected = question.expected.strip()
    return "" if answer == expected else f"expected {expected!r}"


def _contains(question: Question, answer: str) -> str:
    return "" if question.expected.casefold() in answer.casefold() else f"{question.expected!r} is not in it"


def _regex(question: Question, answer: str) -> str:
    return "" if re.search(question.expected, answer) else f"/{question.expected}/ is not found in it"


def _choice(question: Question, answer: str) -> str:
    # Of two choices at the same position, the longer choice counts: "New York", not "New".
    matches = [(m.start(), -len(choice), choice) for choice in question.choices if (m := _find_word(choice, answer))]
    if not matches:
        return f"none of {', '.join(question.choices)} is in it"
    chosen = min(matches)[2]
    return "" if chosen == question.expected else f"chose {chosen!r}, expected {question.expected!r}"


def _find_word(word: str, text: str) -> re.Match[str] | None:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text)


def _json_schema(question: Question, answer: str) -> str:
    import jsonschema  # here, since it takes 0.2 s and few sets need it

    fenced = _FENCE.match(answer)
    try:
        value = json.loads(fenced[1] if fenced else answer)
    except ValueError as error:
        return f"not JSON: {error}"
    problems = jsonschema.Draft202012Validator(question.expected).iter_errors(value)
    problem = jsonschema.exceptions.best_match(problems)
    return "" if problem is None else f"{problem.json_path}: {problem.message}"


def _numeric(question: Question, answer: str) -> str:
    numbers = _NUMBER.findall(answer)
    if not numbers:
        return "no number is in it"
    value, expected = float(numbers[-1].replace(",", "")), float(question.expected)
    if abs(value - expected) <= question.tolerance:
        return ""
    within = f" within {question.tolerance:g}" if question.tolerance else ""
    return f"{value:g}, expected {expected:g}{within}"


_MISTAKES: dict[str, Callable[[Question, str], str]] = {
    "exact": _exact,
    "contains": _contains,
    "regex": _regex,
    "choice": _choice,
    "json_schema": _json_schema,
    "numeric": _numeric,
}
KINDS = tuple(_MISTAKES)
