"""A request of /v1/responses as a chat request."""

from collections.abc import Mapping
from typing import Any

from steps.serving.protocols.fields import invalid, list_of, object_of, present, refuse_unknown, string, text_of

_TEXT = ("input_text", "output_text", "text", "refusal")
_PASSED = ("temperature", "top_p", "parallel_tool_calls", "stream", "model")
_REFUSED = ("previous_response_id", "conversation", "background", "prompt")
_IGNORED = (
    *("store", "metadata", "reasoning", "include", "truncation", "user", "service_tier", "safety_identifier"),
    *("prompt_cache_key", "prompt_cache_retention", "prompt_cache_options", "stream_options"),
)
_ROLES = ("user", "assistant", "system", "developer")
NAMES = {
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
}  # a chat's -> ours
_READ = ("input", "instructions", "max_output_tokens", "tools", "tool_choice", "text")


def chat_request(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the chat request that means the same.

    Raises:
        ApiError: a field is not valid, or needs a server that keeps conversations.
    """
    fields = present(body)
    for name in _REFUSED:
        if fields.get(name):
            raise invalid(name, "this server keeps no responses: send the whole conversation as input")
    refuse_unknown(fields, (*_PASSED, *_REFUSED, *_IGNORED, *_READ))
    chat = {name: fields[name] for name in _PASSED if name in fields}
    chat["messages"] = _messages(fields)
    if "max_output_tokens" in fields:
        chat["max_completion_tokens"] = fields["max_output_tokens"]
    if fields.get("tools"):
        chat["tools"] = [_tool(tool, f"tools[{i}]") for i, tool in enumerate(list_of(fields["tools"], "tools"))]
    if "tool_choice" in fields:
        chat["tool_choice"] = _tool_choice(fields["tool_choice"])
    response_format = _format(object_of(fields.get("text", {}), "text").get("format"))
    return chat | ({"response_format": response_format} if response_format else {})


def _messages(fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    if "instructions" in fields:
        messages.append({"role": "system", "content": string(fields["instructions"], "instructions")})
    items = fields.get("input")
    if isinstance(items, str):
        return [*messages, {"role": "user", "content": items}]
    for index, item in enumerate(list_of(items, "input")):
        _add_item(messages, object_of(item, f"input[{index}]"), f"input[{index}]")
    return messages


def _add_item(messages: list[dict[str, Any]], item: Mapping[str, Any], param: str) -> None:
    """Append the message of an item. Calls in a row belong to one message of the assistant."""
    kind = item.get("type", "message")
    if kind == "message":
        role = string(item.get("role"), f"{param}.role")
        if role not in _ROLES:
            raise invalid(f"{param}.role", f"expected {', '.join(_ROLES)}")
        messages.append({"role": role, "content": text_of(item.get("content"), f"{param}.content", _TEXT)})
    elif kind == "function_call":
        function = {name: string(item.get(name), f"{param}.{name}") for name in ("name", "arguments")}
        call = {"id": str(item.get("call_id")), "type": "function", "function": function}
        if messages and messages[-1]["role"] == "assistant":
            messages[-1].setdefault("tool_calls", []).append(call)
        else:
            messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
    elif kind == "function_call_output":
        output = text_of(item.get("output"), f"{param}.output", _TEXT)
        messages.append({"role": "tool", "tool_call_id": str(item.get("call_id")), "content": output})
    elif kind != "reasoning":
        raise invalid(f"{param}.type", "expected message, function_call, function_call_output or reasoning")


def _tool(tool: Any, param: str) -> dict[str, Any]:
    fields = object_of(tool, param)
    if fields.get("type") != "function":
        raise invalid(f"{param}.type", "this server has functions only")
    function = {name: fields[name] for name in ("name", "description", "parameters", "strict") if fields.get(name)}
    return {"type": "function", "function": function}


def _tool_choice(choice: Any) -> Any:
    if isinstance(choice, Mapping) and choice.get("type") == "function":
        return {"type": "function", "function": {"name": choice.get("name")}}
    return choice


def _format(value: Any) -> dict[str, Any] | None:
    if value is None:
        return None
    fields = object_of(value, "text.format")
    if fields.get("type") == "json_schema":
        schema = {name: fields[name] for name in ("name", "schema", "strict") if fields.get(name) is not None}
        return {"type": "json_schema", "json_schema": schema}
    if fields.get("type") not in ("text", "json_object"):
        raise invalid("text.format.type", "expected text, json_object or json_schema")
    return {"type": fields["type"]}
