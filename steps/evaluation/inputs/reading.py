"""Read the text files and the JSON lines that the parameters of `evaluate` name."""

import json
from pathlib import Path
from typing import Any

from steps.common.errors import StepError

EXAMPLE = '{"messages": [{"role": "user", "content": "..."}], "expected": "..."}'
_ROLES = ("system", "user", "assistant", "tool")

Messages = list[dict[str, str]]  # of a conversation, each with "role" and "content"


def read_lines(path: Path, parameter: str, expected: str) -> list[str]:
    """Return the lines of a text file.

    Args:
        parameter: the name of the parameter that names the file, for errors.
        expected: the kind of file that the parameter takes, for errors.

    Raises:
        StepError: the file cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise StepError(f"{parameter} {path} cannot be read ({error.strerror}): expected {expected}") from None
    except UnicodeDecodeError:
        raise StepError(f"{parameter} {path} is not UTF-8 text: expected {expected}") from None


def read_json_line(line: str, where: str) -> Any:
    """Return the value of a line of JSON.

    Args:
        where: the file and the line number, for errors.

    Raises:
        StepError: the line is not JSON.
    """
    try:
        return json.loads(line)
    except ValueError as error:
        raise StepError(f"{where}: not JSON ({error}); expected {EXAMPLE}") from None


def read_messages(row: Any, where: str) -> Messages:
    """Return the messages of a line.

    Args:
        row: the value of the line.
        where: the file and the line number, for errors.

    Raises:
        StepError: the line has no messages, or a message lacks a valid role or content.
    """
    messages = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(messages, list) or not messages or not all(map(_is_message, messages)):
        raise StepError(f"{where}: no valid messages; expected {EXAMPLE}, with the roles {', '.join(_ROLES)}")
    return messages


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and value.get("role") in _ROLES and isinstance(value.get("content"), str)
