"""Read the text that fidelity is measured on: a plain text, or JSON lines with `text` or with conversations."""

from dataclasses import dataclass
from pathlib import Path

from steps.common.errors import StepError
from steps.evaluation.inputs.reading import Messages, read_json_line, read_lines, read_messages


@dataclass(frozen=True)
class Conversation:
    """Messages, and the answer that follows them."""

    messages: Messages
    answer: str


@dataclass(frozen=True)
class TextContent:
    """What a text holds. Of a document, windows are scored; of a conversation, the answer."""

    documents: tuple[str, ...] = ()
    conversations: tuple[Conversation, ...] = ()


def read_scored_text(path: Path) -> TextContent:
    """Return the content of a text.

    A line of a .jsonl file has `text`, or `messages` and an `expected` answer, or `messages` that end with the
    assistant's. Any other file is one document.

    Raises:
        StepError: the file cannot be read or has no text, or a line is wrong; the message names the line.
    """
    lines = read_lines(path, "text", "a text or JSONL file")
    if path.suffix != ".jsonl":
        document = "\n".join(lines)
        if not document.strip():
            raise StepError(f"text {path} is empty: expected some text")
        return TextContent(documents=(document,))
    rows = [_row(line, f"text {path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise StepError(f"text {path} is empty: expected a JSON object on each line")
    return TextContent(
        documents=tuple(row for row in rows if isinstance(row, str)),
        conversations=tuple(row for row in rows if isinstance(row, Conversation)),
    )


def _row(line: str, where: str) -> str | Conversation:
    """Return the document or the conversation of a line."""
    row = read_json_line(line, where)
    if isinstance(row, dict) and "text" in row:
        if not isinstance(row["text"], str) or not row["text"].strip():
            raise StepError(f"{where}: text is {row['text']!r}; expected some text")
        return row["text"]
    messages = read_messages(row, where)
    if isinstance(row.get("expected"), str) and row["expected"]:
        return Conversation(messages, row["expected"])
    if messages[-1]["role"] == "assistant" and len(messages) > 1:
        return Conversation(messages[:-1], messages[-1]["content"])
    raise StepError(f"{where}: no answer to predict: expected `text`, `expected`, or an assistant's message last")
