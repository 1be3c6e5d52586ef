"""A request of Anthropic's /v1/messages as a chat request."""

import json
from collections.abc import Mapping
from typing import Any

from steps.serving.protocols.fields import invalid, list_of, object_of, present, refuse_unknown, string, text_of

_PASSED = ("temperature", "top_p", "top_k", "stream", "model")
_READ = ("messages", "system", "max_tokens", "stop_sequences", "tools", "tool_choice", "output_config")
_IGNORED = ("metadata", "service_tier", "cache_control", "container", "thinking", "context_management")
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
NAMES = {"stop": "stop_sequences", "response_format": "output_config.format"}  # a chat's -> ours


def chat_request(body: Mapping[str, Any], needs_max_tokens: bool = True) -> dict[str, Any]:
    """Return the chat request that means the same.

    Args:
        needs_max_tokens: whether max_tokens must be there, as Anthropic's API demands of a request for an answer.

    Raises:
        ApiError: a field is not valid.
    """
    fields = present(body)
    refuse_unknown(fields, (*_PASSED, *_READ, *_IGNORED))
    chat = {name: fields[name] for name in _PASSED if name in fields}
    chat["messages"] = _messages(fields)
    if "max_tokens" in fields:
        chat["max_tokens"] = fields["max_tokens"]
    elif needs_max_tokens:
        raise invalid("max_tokens", "this field is required")
    if fields.get("stop_sequences"):
        chat["stop"] = fields["stop_sequences"]
    last = chat["messages"][-1] if chat["messages"] else {}
    if last.get("role") == "assistant" and not last.get("tool_calls"):
        chat["continue_final_message"] = True  # Anthropic's API goes on with the text of a last message of its own
    return chat | _tools(fields) | _output(fields)


def _tools(fields: Mapping[str, Any]) -> dict[str, Any]:
    chat: dict[str, Any] = {}
    if fields.get("tools"):
        chat["tools"] = [_tool(tool, f"tools[{i}]") for i, tool in enumerate(list_of(fields["tools"], "tools"))]
    if "tool_choice" in fields:
        choice = object_of(fields["tool_choice"], "tool_choice")
        chat["tool_choice"] = _tool_choice(choice)
        if choice.get("disable_parallel_tool_use"):
            chat["parallel_tool_calls"] = False
    return chat


def _output(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the chat's response_format. The other key of output_config, `effort`, changes nothing here."""
    config = present(object_of(fields.get("output_config", {}), "output_config"))
    if "format" not in config:
        return {}
    output = object_of(config["format"], "output_config.format")
    if output.get("type") != "json_schema":
        raise invalid("output_config.format.type", "expected json_schema")
    schema = object_of(output.get("schema"), "output_config.format.schema")
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "output", "schema": schema}}}


def _messages(fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    if "system" in fields:
        messages.append({"role": "system", "content": text_of(fields["system"], "system", ("text",))})
    for index, message in enumerate(list_of(fields.get("messages"), "messages")):
        param = f"messages[{index}]"
        message = object_of(message, param)
        role, content = message.get("role"), message.get("content")
        if role not in ("user", "assistant"):
            raise invalid(f"{param}.role", "expected user or assistant")
        if isinstance(content, str):
            messages.append({"role": role, "content": content})
        else:
            messages += _blocks(role, list_of(content, f"{param}.content"), f"{param}.content")
    return messages


def _blocks(role: str, blocks: list[Any], param: str) -> list[dict[str, Any]]:
    """Return the messages of one message's blocks: the results of tools first, each as a message of its own."""
    texts: list[str] = []
    calls: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for index, block in enumerate(blocks):
        name = f"{param}[{index}]"
        block = object_of(block, name)
        kind = block.get("type")
        if kind == "text":
            texts.append(string(block.get("text"), f"{name}.text"))
        elif kind == "tool_use" and role == "assistant":
            function = {"name": string(block.get("name"), f"{name}.name")}
            function["arguments"] = json.dumps(object_of(block.get("input", {}), f"{name}.input"), ensure_ascii=False)
            calls.append({"id": str(block.get("id")), "type": "function", "function": function})
        elif kind == "tool_result" and role == "user":
            text = text_of(block.get("content", ""), f"{name}.content", ("text",))
            results.append({"role": "tool", "tool_call_id": str(block.get("tool_use_id")), "content": text})
        elif kind not in ("thinking", "redacted_thinking"):
            raise invalid(name, "this model reads text, tool_use and tool_result only")
    message: dict[str, Any] = {"role": role, "content": "".join(texts)}
    if calls:
        return [message | {"content": message["content"] or None, "tool_calls": calls}]
    return results + ([message] if texts or not results else [])


def _tool(tool: Any, param: str) -> dict[str, Any]:
    fields = object_of(tool, param)
    if fields.get("type", "custom") != "custom":
        raise invalid(f"{param}.type", "this server has tools with an input_schema only")
    function = {"name": string(fields.get("name"), f"{param}.name")}
    if fields.get("description"):
        function["description"] = fields["description"]
    parameters = object_of(fields.get("input_schema"), f"{param}.input_schema")
    return {"type": "function", "function": function | {"parameters": parameters}}


def _tool_choice(choice: Mapping[str, Any]) -> Any:
    kind = choice.get("type")
    if kind == "tool":
        return {"type": "function", "function": {"name": string(choice.get("name"), "tool_choice.name")}}
    if kind not in _CHOICES:
        raise invalid("tool_choice.type", "expected auto, any, tool or none")
    return _CHOICES[kind]
