"""The text that fidelity is measured on: a plain text, or JSON lines with `text` or with conversations."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steps.common.errors import StepError
from steps.evaluation.inputs.evalset import read_json_line, read_lines, read_messages


@dataclass(frozen=True)
class Text:
    """Documents, of which windows are read, and conversations, of which the answers count."""

    documents: list[str] = field(default_factory=list)
    conversations: list[dict[str, Any]] = field(default_factory=list)  # messages, answer


def read_text(path: Path) -> Text:
    """Read and check a text. A line of a .jsonl has `text`, or `messages` with either an `expected` answer or an
    assistant's message at their end.

    Raises:
        StepError: no such file, nothing in it, or a bad line, with its number and the reason.
    """
    lines = read_lines(path, "text", "a text or JSONL file")
    if path.suffix != ".jsonl":
        document = "\n".join(lines)
        if not document.strip():
            raise StepError(f"text {path} is empty: expected some text")
        return Text([document])
    text = Text()
    for number, line in enumerate(lines, 1):
        if line.strip():
            _add(text, line, f"text {path}, line {number}")
    if not text.documents and not text.conversations:
        raise StepError(f"text {path} is empty: expected a JSON object on each line")
    return text


def _add(text: Text, line: str, place: str) -> None:
    row = read_json_line(line, place)
    if isinstance(row, dict) and "text" in row:
        if not isinstance(row["text"], str) or not row["text"].strip():
            raise StepError(f"{place}: text is {row['text']!r}; expected some text")
        text.documents.append(row["text"])
        return
    messages = read_messages(row, place)
    if isinstance(row.get("expected"), str) and row["expected"]:
        text.conversations.append({"messages": messages, "answer": row["expected"]})
    elif messages[-1]["role"] == "assistant" and len(messages) > 1:
        text.conversations.append({"messages": messages[:-1], "answer": messages[-1]["content"]})
    else:
        raise StepError(f"{place}: no answer to predict: expected `text`, `expected`, or an assistant's message last")
