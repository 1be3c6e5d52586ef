"""Evaluation sets: JSON lines with `messages`, the `expected` answer, and the `kind` of match that counts as right.

exact        the text, but for white space around it (the default)
contains     the text stands somewhere in the answer, in upper or lower case
regex        Python's `re` finds the expression somewhere in the answer
choice       of the line's `choices`, the first that stands in the answer as a word is the expected one
json_schema  the answer, fenced as code or not, is JSON that the expected schema admits (JSON Schema 2020-12)
numeric      the answer's last number is the expected one, within the line's `tolerance` (0)
"""

import difflib
import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steps.common.errors import StepError, nearest

KINDS = ("exact", "contains", "regex", "choice", "json_schema", "numeric")
_FIELDS = ("messages", "expected", "kind", "choices", "tolerance")
_ROLES = ("system", "user", "assistant", "tool")
_EXAMPLE = '{"messages": [{"role": "user", "content": "..."}], "expected": "..."}'
_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_FENCE = re.compile(r"^```\w*\n(.*?)\n?```$", re.DOTALL)


@dataclass(frozen=True)
class Item:
    """One question, as chat messages, and what counts as a right answer."""

    messages: list[dict[str, Any]]
    expected: Any
    kind: str = "exact"
    choices: list[str] = field(default_factory=list)
    tolerance: float = 0.0

    @property
    def question(self) -> str:
        """The last message's text, to show."""
        return self.messages[-1]["content"]

    @property
    def expected_text(self) -> str:
        """What is expected, to show."""
        return self.expected if isinstance(self.expected, str) else json.dumps(self.expected, ensure_ascii=False)

    def mistake(self, answer: str) -> str:
        """Why an answer is wrong, in words; empty where it is right."""
        return _MISTAKES[self.kind](self, answer.strip())


def _exact(item: Item, answer: str) -> str:
    return "" if answer == item.expected.strip() else f"expected {item.expected.strip()!r}"


def _contains(item: Item, answer: str) -> str:
    return "" if item.expected.casefold() in answer.casefold() else f"{item.expected!r} is not in it"


def _regex(item: Item, answer: str) -> str:
    return "" if re.search(item.expected, answer) else f"/{item.expected}/ is not found in it"


def _choice(item: Item, answer: str) -> str:
    found = [(match.start(), -len(choice), choice) for choice in item.choices if (match := _word(choice, answer))]
    chosen = min(found)[2] if found else None
    if chosen == item.expected:
        return ""
    return f"chose {chosen!r}, expected {item.expected!r}" if chosen else f"none of {', '.join(item.choices)} is in it"


def _word(word: str, text: str) -> re.Match[str] | None:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text)


def _json_schema(item: Item, answer: str) -> str:
    import jsonschema

    fenced = _FENCE.match(answer)
    try:
        value = json.loads(fenced[1] if fenced else answer)
    except ValueError as error:
        return f"not JSON: {error}"
    error = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(item.expected).iter_errors(value))
    return "" if error is None else f"{error.json_path}: {error.message}"


def _numeric(item: Item, answer: str) -> str:
    numbers = _NUMBER.findall(answer)
    if not numbers:
        return "no number is in it"
    value = float(numbers[-1].replace(",", ""))
    if abs(value - float(item.expected)) <= item.tolerance:
        return ""
    within = f" within {item.tolerance:g}" if item.tolerance else ""
    return f"{value:g}, expected {float(item.expected):g}{within}"


_MISTAKES = {
    "exact": _exact,
    "contains": _contains,
    "regex": _regex,
    "choice": _choice,
    "json_schema": _json_schema,
    "numeric": _numeric,
}


def spread(items: list[Item], count: int) -> list[Item]:
    """At most `count` of the items, evenly spread over the set and in its order."""
    if count >= len(items):
        return items
    return [items[index * len(items) // count] for index in range(count)]


def read_evalset(path: Path) -> list[Item]:
    """Read and check a whole evaluation set.

    Raises:
        StepError: no such file, no items, or a bad line, with its number and the reason.
    """
    lines = read_lines(path, "evalset", "a JSONL file")
    items = [_item(line, f"evalset {path}, line {i}") for i, line in enumerate(lines, 1) if line.strip()]
    if not items:
        raise StepError(f"evalset {path} is empty: expected a JSON object on each line, such as {_EXAMPLE}")
    return items


def read_lines(path: Path, parameter: str, expected: str) -> list[str]:
    """The lines of a text file that a parameter names.

    Raises:
        StepError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise StepError(f"{parameter} {path} cannot be read ({error.strerror}): expected {expected}") from None
    except UnicodeDecodeError:
        raise StepError(f"{parameter} {path} is not UTF-8 text: expected {expected}") from None


def read_messages(row: Any, place: str) -> list[dict[str, Any]]:
    """The messages of a line.

    Raises:
        StepError: there are none, or one is not {"role", "content"}.
    """
    messages = row.get("messages") if isinstance(row, dict) else None
    valid = isinstance(messages, list) and messages
    if not valid or not all(
        isinstance(m, dict) and m.get("role") in _ROLES and isinstance(m.get("content"), str) for m in messages
    ):
        roles = ", ".join(_ROLES)
        raise StepError(f"{place}: no valid messages; expected {_EXAMPLE}, with the roles {roles}")
    return messages


def read_json_line(line: str, place: str) -> Any:
    """A line's value.

    Raises:
        StepError: it is not JSON.
    """
    try:
        return json.loads(line)
    except ValueError as error:
        raise StepError(f"{place}: not JSON ({error}); expected {_EXAMPLE}") from None


def _item(line: str, place: str) -> Item:
    row = read_json_line(line, place)
    messages = read_messages(row, place)
    for name in row:
        if name not in _FIELDS and difflib.get_close_matches(
            name, _FIELDS, cutoff=0.75
        ):  # others, such as an id, are theirs
            raise StepError(f"{place}: no field {name!r}; {nearest(name, _FIELDS)}")
    kind = row.get("kind", "exact")
    if kind not in KINDS:
        raise StepError(f"{place}: kind is {kind!r}; {nearest(str(kind), KINDS)}")
    for name, owner in (("choices", "choice"), ("tolerance", "numeric")):
        if name in row and kind != owner:
            raise StepError(f"{place}: {name} belongs to the kind {owner}, and this one is {kind}")
    if "expected" not in row:
        raise StepError(f"{place}: no expected answer; expected {_EXAMPLE}")
    item = Item(messages, row["expected"], kind, row.get("choices", []), row.get("tolerance", 0.0))
    problem = _problem(item)
    if problem:
        raise StepError(f"{place}: {problem}")
    return item


def _problem(item: Item) -> str:
    """What is wrong with an item's expected answer, in words."""
    expected = item.expected
    if item.kind == "json_schema":
        import jsonschema

        try:
            jsonschema.Draft202012Validator.check_schema(expected)
        except jsonschema.SchemaError as error:
            return f"expected is no JSON schema: {' '.join(error.message.split())}"
        return "" if isinstance(expected, dict) else f"expected is {expected!r}; a JSON schema is an object"
    if item.kind == "numeric":
        for name, value in (("expected", expected), ("tolerance", item.tolerance)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                return f"{name} is {value!r}; expected a number"
        return "" if item.tolerance >= 0 else f"tolerance is {item.tolerance!r}; expected 0 or more"
    if not isinstance(expected, str):
        return f"no expected answer: it is {expected!r}; expected text"
    if item.kind != "exact" and not expected:
        return f"expected is empty, which every answer {item.kind} would match"
    if item.kind == "regex":
        try:
            re.compile(expected)
        except re.error as error:
            return f"expected {expected!r} is no regular expression ({error})"
    if item.kind == "choice":
        choices = item.choices
        if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(c, str) and c for c in choices):
            return f"choices is {choices!r}; expected at least two texts"
        if expected not in choices:
            return f"expected is {expected!r}, which is none of the choices {', '.join(choices)}"
    return ""
