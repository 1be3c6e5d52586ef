"""Read an evaluation set: JSON lines with `messages`, the `expected` answer, and the `kind` of match.

The kinds are in question.py. A line may have fields of its own, such as an id.
"""

import difflib
import math
import re
from pathlib import Path
from typing import Any

from steps.common.errors import StepError, nearest
from steps.evaluation.inputs.question import KINDS, Question
from steps.evaluation.inputs.reading import EXAMPLE, read_json_line, read_lines, read_messages

_FIELDS = ("messages", "expected", "kind", "choices", "tolerance")
_KIND_OF_FIELD = {"choices": "choice", "tolerance": "numeric"}


def read_evalset(path: Path) -> list[Question]:
    """Return the questions of an evaluation set.

    Raises:
        StepError: the file cannot be read or has no questions, or a line is wrong; the message names the line.
    """
    lines = read_lines(path, "evalset", "a JSONL file")
    questions = [_question(line, f"evalset {path}, line {i}") for i, line in enumerate(lines, 1) if line.strip()]
    if not questions:
        raise StepError(f"evalset {path} is empty: expected a JSON object on each line, such as {EXAMPLE}")
    return questions


def spread(questions: list[Question], count: int) -> list[Question]:
    """Return at most `count` of the questions, evenly spread over the set and in its order."""
    if count >= len(questions):
        return questions
    return [questions[index * len(questions) // count] for index in range(count)]


def _question(line: str, where: str) -> Question:
    row = read_json_line(line, where)
    messages = read_messages(row, where)
    problem = _field_problem(row) or _expected_problem(row)
    if problem:
        raise StepError(f"{where}: {problem}")
    kind, choices = row.get("kind", "exact"), tuple(row.get("choices", ()))
    return Question(messages, row["expected"], kind, choices, row.get("tolerance", 0.0))


def _field_problem(row: dict[str, Any]) -> str:
    """Return what is wrong with the fields of a line, in words; empty if nothing is."""
    for name in row:
        # A name that is close to a field's is a slip; any other is the user's own field.
        if name not in _FIELDS and difflib.get_close_matches(name, _FIELDS, cutoff=0.75):
            return f"no field {name!r}; {nearest(name, _FIELDS)}"
    kind = row.get("kind", "exact")
    if kind not in KINDS:
        return f"kind is {kind!r}; {nearest(str(kind), KINDS)}"
    for name, owner in _KIND_OF_FIELD.items():
        if name in row and kind != owner:
            return f"{name} belongs to the kind {owner}, and this line has the kind {kind}"
    return "" if "expected" in row else f"no expected answer; expected {EXAMPLE}"


def _expected_problem(row: dict[str, Any]) -> str:
    """Return what is wrong with the expected answer of a line, in words; empty if nothing is."""
    kind, expected = row.get("kind", "exact"), row["expected"]
    if kind == "json_schema":
        return _schema_problem(expected)
    if kind == "numeric":
        return _number_problem(expected, row.get("tolerance", 0.0))
    if not isinstance(expected, str):
        return f"no expected answer: it is {expected!r}; expected text"
    if kind != "exact" and not expected:
        return f"expected is empty, which every answer {kind} would match"
    if kind == "regex":
        return _regex_problem(expected)
    return _choices_problem(expected, row.get("choices", [])) if kind == "choice" else ""


def _schema_problem(expected: Any) -> str:
    import jsonschema  # here, since it takes 0.2 s and few sets need it

    try:
        jsonschema.Draft202012Validator.check_schema(expected)
    except jsonschema.SchemaError as error:
        return f"expected is not a JSON schema: {' '.join(error.message.split())}"
    return "" if isinstance(expected, dict) else f"expected is {expected!r}; a JSON schema is an object"


def _number_problem(expected: Any, tolerance: Any) -> str:
    for name, value in (("expected", expected), ("tolerance", tolerance)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return f"{name} is {value!r}; expected a number"
    return "" if tolerance >= 0 else f"tolerance is {tolerance!r}; expected 0 or more"


def _regex_problem(expected: str) -> str:
    try:
        re.compile(expected)
    except re.error as error:
        return f"expected {expected!r} is not a regular expression ({error})"
    return ""


def _choices_problem(expected: str, choices: Any) -> str:
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(c, str) and c for c in choices):
        return f"choices is {choices!r}; expected at least two texts"
    return "" if expected in choices else f"expected is {expected!r}, which is none of the choices {', '.join(choices)}"
