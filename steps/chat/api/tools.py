"""Read the tools of a request, and the tool calls of an answer."""

import json
import uuid
from collections.abc import Collection, Mapping
from typing import Any

from .fields import invalid
from .response_format import JsonFormat, check_schema_size

_CHOICES = ("none", "auto", "required")
# Phi-4-mini begins a call with its special token, with the word that it was trained on, or with the JSON itself.
_CALL_STARTS = ("<|tool_call|>", "functools", "[", "{")


def read_tools(fields: Mapping[str, Any], supports_tools: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the tools that the prompt shows, and the tools of which the answer must call at least one.

    The second list is empty if the model may answer with text.

    Args:
        supports_tools: whether the model's chat template shows tools.

    Raises:
        ModelError: INVALID_PARAMETER_VALUE. The message names the field.
    """
    choice = fields.get("tool_choice", "auto")
    function = choice.get("function") if isinstance(choice, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not (isinstance(name, str) and name) and choice not in _CHOICES:
        raise invalid("tool_choice", choice, f"expected {', '.join(_CHOICES)}, or a function by its name")
    tools = _tools(fields.get("tools"))
    if tools and not supports_tools:
        raise invalid("tools", tools, "this model's chat template has no tools: leave it out")
    if name:
        callable_tools = [tool for tool in tools if tool["function"]["name"] == name]
    else:
        callable_tools = tools if choice == "required" else []
    if (name or choice == "required") and not callable_tools:
        raise invalid("tool_choice", choice, "expected one of the request's tools")
    return ([] if choice == "none" else tools), callable_tools


def _tools(value: Any) -> list[dict[str, Any]]:
    tools = value or []
    if not isinstance(tools, list):
        raise invalid("tools", tools, "expected a list of functions")
    for index, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, Mapping) and tool.get("type") == "function" else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise invalid(f"tools[{index}]", tool, "expected type 'function' and a function with a name")
    check_schema_size("tools", tools)
    return tools


def calls_format(tools: list[dict[str, Any]], parallel: bool = True) -> JsonFormat:
    """Return the format of an answer that is a list of calls of the given tools.

    Args:
        parallel: whether the answer may have more than one call.
    """
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
    most = {} if parallel else {"maxItems": 1}
    return JsonFormat({"type": "array", "items": {"anyOf": calls}, "minItems": 1} | most)


def parse_calls(text: str, names: Collection[str]) -> tuple[dict[str, Any], ...]:
    """Return the calls that an answer consists of, in OpenAI's form. Return none if it is anything else.

    Phi-4-mini writes `functools[{"name": ..., "arguments": {...}}, ...]`, or puts the list between <|tool_call|> and
    <|/tool_call|> (https://huggingface.co/microsoft/Phi-4-mini-instruct).

    Args:
        names: the names of the request's tools.
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
    """Return whether the beginning of an answer may become tool calls. Then it must not be shown as text yet."""
    return any(text.startswith(start[: len(text)]) for start in _CALL_STARTS)
