"""Tools: those that a request names, and the calls that an answer consists of."""

import json
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from .fields import invalid, plain

_CHOICES = ("none", "auto", "required")
# How Phi-4-mini begins a call: in its own special tokens, in the word that it was trained on, or at once, as JSON.
_CALL_STARTS = ("<|tool_call|>", "functools", "[", "{")


def read_tools(given: Mapping[str, Any], takes_tools: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The tools to show, and those of which one must be called.

    Args:
        takes_tools: whether the model's chat template shows tools.

    Raises:
        MlflowException: naming the field that is invalid.
    """
    tools, choice = plain(given.get("tools")) or [], given.get("tool_choice", "auto")
    named = choice["function"].get("name") if isinstance(choice, Mapping) and "function" in choice else None
    if not named and choice not in _CHOICES:
        raise invalid("tool_choice", choice, f"expected {', '.join(_CHOICES)}, or a function by its name")
    if not isinstance(tools, list):
        raise invalid("tools", tools, "expected a list of functions")
    for index, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, Mapping) and tool.get("type") == "function" else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise invalid(f"tools[{index}]", tool, "expected type 'function' and a function with a name")
    if tools and not takes_tools:
        raise invalid("tools", tools, "this model's chat template shows none: leave it out")
    wanted = [tool for tool in tools if tool["function"]["name"] == named] if named else tools
    if (named or choice == "required") and not wanted:
        raise invalid("tool_choice", choice, "expected one of the request's tools")
    return ([] if choice == "none" else tools), (wanted if named or choice == "required" else [])


def call_form(tools: list[dict[str, Any]]) -> tuple[str, Any]:
    """What an answer must match to be a call of one of the tools."""
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": tool["function"]["name"]},
                "arguments": tool["function"].get("parameters") or {"type": "object"},
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in tools
    ]
    return "json_schema", {"type": "array", "items": {"anyOf": calls}, "minItems": 1}


def parse_calls(text: str, names: Iterable[str]) -> tuple[dict[str, Any], ...]:
    """The calls that an answer consists of, in OpenAI's form; none where it is anything else.

    Phi-4-mini writes `functools[{"name": ..., "arguments": {...}}, ...]` or puts the list between <|tool_call|> and
    <|/tool_call|> (https://huggingface.co/microsoft/Phi-4-mini-instruct).
    """
    text = text.strip().removeprefix("<|tool_call|>").removesuffix("<|/tool_call|>").strip()
    try:
        calls = json.loads(text.removeprefix("functools"))
    except ValueError:
        return ()
    calls = [calls] if isinstance(calls, dict) else calls
    if not isinstance(calls, list) or not all(isinstance(call, dict) and call.get("name") in names for call in calls):
        return ()
    return tuple(
        {
            "id": f"call_{uuid.uuid4().hex}",
            "type": "function",
            "function": {
                "name": call["name"],
                "arguments": json.dumps(call.get("arguments", call.get("parameters", {})), ensure_ascii=False),
            },
        }
        for call in calls
    )


def may_be_calls(text: str) -> bool:
    """Whether the beginning of an answer may become calls, so that it must not be shown as text yet."""
    return any(text.startswith(start[: len(text)]) for start in _CALL_STARTS)
