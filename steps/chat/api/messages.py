"""Read the messages of a conversation as the OpenAI API allows them."""

import json
from collections.abc import Mapping
from typing import Any

from ..errors import ModelError
from .fields import invalid, present

# role of the API -> role of the chat template
ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
_TEXT_PARTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}  # type -> its key
_KEPT = ("name", "tool_call_id")  # texts that a chat template may show


def read_messages(value: Any, shows_calls: bool) -> list[dict[str, Any]]:
    """Return the messages: role, content as a string, and tool calls with arguments as JSON. Other keys are dropped.

    Args:
        value: the field `messages`.
        shows_calls: whether the chat template shows tool calls and the messages of tools.

    Raises:
        ModelError: INVALID_PARAMETER_VALUE. The message names the field.
    """
    if not isinstance(value, list) or not value:
        raise invalid("messages", value, "expected a list of at least one message")
    messages = [_message(f"messages[{index}]", message) for index, message in enumerate(value)]
    if not shows_calls:
        _refuse_dropped(messages)
    return messages


def _refuse_dropped(messages: list[dict[str, Any]]) -> None:
    """Raise ModelError if a conversation has what a chat template without tools leaves out."""
    dropped = {f"messages[{index}].role": "role tool" for index, m in enumerate(messages) if m["role"] == "tool"}
    dropped |= {f"messages[{index}].tool_calls": "tool_calls" for index, m in enumerate(messages) if "tool_calls" in m}
    for name, what in dropped.items():
        raise ModelError(f"{name}: this model's chat template drops {what}: leave it out", param=name)


def check_continued(messages: list[dict[str, Any]]) -> None:
    """Raise ModelError if the last message is not the beginning of an answer."""
    last = messages[-1]
    if last["role"] != "assistant" or last.get("tool_calls") or not last["content"]:
        expected = "expected a last message of the assistant with text and without tool_calls"
        raise invalid("continue_final_message", True, expected)


def _message(name: str, message: Any) -> dict[str, Any]:
    """Return a message.

    Args:
        name: the message's name in errors.
    """
    if not isinstance(message, Mapping):
        raise invalid(name, message, "expected an object with a role and a content")
    fields = present(message)
    role = fields.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise invalid(f"{name}.role", role, f"expected {', '.join(ROLES)}")
    calls = fields.get("tool_calls") or []
    if calls and role != "assistant":
        raise invalid(f"{name}.tool_calls", calls, "only a message of the assistant has tool calls")
    if not isinstance(calls, list):
        raise invalid(f"{name}.tool_calls", calls, "expected a list of calls")
    absent = "" if role == "assistant" else None
    parsed: dict[str, Any] = {
        "role": ROLES[role],
        "content": _content(f"{name}.content", fields.get("content", absent)),
    }
    kept = {key: fields[key] for key in _KEPT if isinstance(fields.get(key), str)}
    thought = fields.get("reasoning_content", "")
    if not isinstance(thought, str):
        raise invalid(f"{name}.reasoning_content", thought, "expected a string")
    if thought and role == "assistant":
        kept["reasoning_content"] = thought
    read = [_call(f"{name}.tool_calls[{index}]", call) for index, call in enumerate(calls)]
    return parsed | kept | ({"tool_calls": read} if read else {})


def _content(name: str, content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise invalid(name, content, "expected a string or a list of text parts")
    return "".join(_part(f"{name}[{index}]", part) for index, part in enumerate(content))


def _part(name: str, part: Any) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else None
    if not isinstance(kind, str):
        raise invalid(name, part, "expected a part with a type")
    if kind not in _TEXT_PARTS:
        raise ModelError(f"{name} is not a text part; this model reads text only", param=name)
    text = part.get(_TEXT_PARTS[kind])
    if not isinstance(text, str):
        raise invalid(f"{name}.{_TEXT_PARTS[kind]}", text, "expected a string")
    return text


def _call(name: str, call: Any) -> dict[str, Any]:
    """Return a tool call. Its arguments are a JSON text; an empty text means no arguments."""
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise invalid(name, call, "expected a function's name and arguments as JSON")
    arguments = function.get("arguments")
    if isinstance(arguments, Mapping):
        arguments = json.dumps(arguments, ensure_ascii=False)
    try:
        json.loads(arguments or "{}")
    except (TypeError, ValueError, RecursionError):
        raise invalid(f"{name}.function.arguments", arguments, "expected the arguments as JSON") from None
    identity = {key: call[key] for key in ("id",) if isinstance(call.get(key), str)}
    return identity | {"type": "function", "function": {"name": function["name"], "arguments": arguments or "{}"}}
