"""Evaluation sets: JSON lines with `messages` and the `expected` answer."""

import json
from dataclasses import dataclass
from pathlib import Path

from steps.errors import StepError


@dataclass(frozen=True)
class Item:
    """One question, as chat messages, and the answer that counts as right."""

    messages: list[dict[str, str]]
    expected: str

    @property
    def question(self) -> str:
        """The last message's text, to show."""
        return self.messages[-1]["content"]

    def is_right(self, answer: str) -> bool:
        """Exact match but for white space around it."""
        return answer.strip() == self.expected.strip()


def read_evalset(path: Path) -> list[Item]:
    """Read and check a whole evaluation set.

    Raises:
        StepError: no such file, no items, or a bad line, with its number and the reason.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise StepError(f"evalset {path} cannot be read ({error.strerror}): expected a JSONL file") from None
    except UnicodeDecodeError:
        raise StepError(f"evalset {path} is not UTF-8 text: expected a JSONL file") from None
    items = [_item(line, f"evalset {path}, line {i}") for i, line in enumerate(lines, 1) if line.strip()]
    if not items:
        raise StepError(f"evalset {path} is empty: expected a JSON object on each line")
    return items


def _item(line: str, place: str) -> Item:
    expected = 'expected {"messages": [{"role": "user", "content": "..."}], "expected": "..."}'
    try:
        row = json.loads(line)
    except ValueError as error:
        raise StepError(f"{place}: not JSON ({error}); {expected}") from None
    messages = row.get("messages") if isinstance(row, dict) else None
    valid = isinstance(messages, list) and messages
    valid = valid and all(
        isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str) for m in messages
    )
    if not valid:
        raise StepError(f"{place}: no valid messages; {expected}")
    if not isinstance(row.get("expected"), str):
        raise StepError(f"{place}: no expected answer; {expected}")
    return Item(messages, row["expected"])
