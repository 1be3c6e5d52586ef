"""Parse the requests of `llm/v1/chat`, and the rows and parameters of `llm/v1/completions`.

The schema is mlflow.types.llm.CHAT_MODEL_INPUT_SCHEMA. It lacks seed, response_format and tool_choice. They mean what
they mean in the OpenAI API: https://platform.openai.com/docs/api-reference/chat.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .fields import invalid, number, plain, present, whole_number
from .response_format import ResponseFormat, parse_response_format
from .tools import calls_format, read_tools

ROLES = ("system", "user", "assistant", "tool")
MAX_CHOICES = 16


@dataclass(frozen=True)
class Sampling:
    """How the tokens of an answer are chosen: the most likely one, unless the temperature is above 0."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    response_format: ResponseFormat | None = None


@dataclass(frozen=True)
class ChatRequest:
    """A valid request for `n` answers to a conversation."""

    messages: list[dict[str, Any]]
    sampling: Sampling
    n: int = 1
    tools: list[dict[str, Any]] = field(default_factory=list)


def parse_chat(row: Mapping[str, Any], default_max_tokens: int, supports_tools: bool) -> ChatRequest:
    """Return the request of a row: a row of the DataFrame that MLflow makes of a request, or the request itself.

    Args:
        supports_tools: whether the model's chat template shows tools.

    Raises:
        MlflowException: INVALID_PARAMETER_VALUE (HTTP 400). The message names the field.
    """
    fields = present(row)
    if fields.get("custom_inputs"):
        raise invalid("custom_inputs", fields["custom_inputs"], "this model has none: leave it out")
    tools, callable_tools = read_tools(fields, supports_tools)
    response_format = parse_response_format(fields.get("response_format"))
    if callable_tools:
        if response_format:
            shown = fields["response_format"]
            raise invalid("response_format", shown, "leave it out when tool_choice requires a call")
        response_format = calls_format(callable_tools)
    return ChatRequest(
        messages=_messages(fields.get("messages")),
        sampling=_sampling(fields, default_max_tokens, response_format),
        n=whole_number(fields, "n", 1, minimum=1, maximum=MAX_CHOICES),
        tools=tools,
    )


def parse_prompt(row: Mapping[str, Any]) -> str:
    """Return the prompt of a row of `llm/v1/completions`.

    Raises:
        MlflowException: INVALID_PARAMETER_VALUE. The message names the field.
    """
    prompt = row.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise invalid("prompt", prompt, "expected a text that is not empty")
    return prompt


def parse_params(params: Mapping[str, Any], default_max_tokens: int) -> Sampling:
    """Return the parameters of `llm/v1/completions`, which apply to all rows. Their response_format is a JSON text.

    Raises:
        MlflowException: INVALID_PARAMETER_VALUE. The message names the parameter.
    """
    fields = present(params)
    for name, absent in (("seed", -1), ("response_format", "")):  # MLflow's parameters cannot default to None
        if fields.get(name) == absent:
            del fields[name]
    response_format = fields.get("response_format")
    if isinstance(response_format, str):
        try:
            response_format = json.loads(response_format)
        except ValueError:
            expected = "expected JSON, with the content that llm/v1/chat takes"
            raise invalid("response_format", response_format, expected) from None
    return _sampling(fields, default_max_tokens, parse_response_format(response_format))


def _sampling(fields: Mapping[str, Any], default_max_tokens: int, response_format: ResponseFormat | None) -> Sampling:
    return Sampling(
        max_tokens=whole_number(fields, "max_tokens", default_max_tokens, minimum=1),
        temperature=number(fields, "temperature", 0.0, minimum=0, maximum=2),
        top_p=number(fields, "top_p", 1.0, minimum=0, maximum=1),
        top_k=whole_number(fields, "top_k", 0, minimum=0),
        stop=_stop(fields.get("stop")),
        seed=whole_number(fields, "seed", 0, minimum=0, maximum=2**63 - 1) if "seed" in fields else None,
        frequency_penalty=number(fields, "frequency_penalty", 0.0, minimum=-2, maximum=2),
        presence_penalty=number(fields, "presence_penalty", 0.0, minimum=-2, maximum=2),
        response_format=response_format,
    )


def _messages(value: Any) -> list[dict[str, Any]]:
    value = plain(value)
    if not isinstance(value, list) or not value:
        raise invalid("messages", value, "expected a list of at least one message")
    return [_message(f"messages[{index}]", message) for index, message in enumerate(value)]


def _message(name: str, message: Any) -> dict[str, Any]:
    """Return the role, the content, the thought and the tool calls of a message.

    Args:
        name: the message's name in errors.
    """
    if not isinstance(message, Mapping) or message.get("role") not in ROLES:
        raise invalid(name, message, f"expected a role of {', '.join(ROLES)}")
    fields = present(message)
    calls = fields.get("tool_calls") or []
    if calls and fields["role"] != "assistant":
        raise invalid(f"{name}.tool_calls", calls, "only a message of the assistant has tool calls")
    content = fields.get("content", "" if calls else None)
    if not isinstance(content, str):
        raise invalid(f"{name}.content", content, "expected a string")
    for call in calls:
        _check_call(f"{name}.tool_calls", call)
    parsed: dict[str, Any] = {"role": fields["role"], "content": content}
    thought = fields.get("reasoning_content", "")
    if not isinstance(thought, str):
        raise invalid(f"{name}.reasoning_content", thought, "expected a string")
    if thought and fields["role"] == "assistant":
        parsed["reasoning_content"] = thought
    return parsed | ({"tool_calls": calls} if calls else {})


def _check_call(name: str, call: Any) -> None:
    try:
        if not isinstance(call["function"]["name"], str):
            raise TypeError
        json.loads(call["function"]["arguments"])
    except (KeyError, TypeError, ValueError):
        raise invalid(name, call, "expected a function's name and arguments as JSON") from None


def _stop(value: Any) -> tuple[str, ...]:
    value = plain(value)
    strings = [value] if isinstance(value, str) else value or []
    if not isinstance(strings, list) or not all(isinstance(string, str) and string for string in strings):
        raise invalid("stop", strings, "expected a string or a list of strings, and no empty string")
    return tuple(strings)
