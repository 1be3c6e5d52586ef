"""The requests of `llm/v1/chat`, and the rows of `llm/v1/completions`.

The schema is mlflow.types.llm.CHAT_MODEL_INPUT_SCHEMA; what it lacks of the OpenAI API
(seed, response_format, tool_choice) has its meaning there: https://platform.openai.com/docs/api-reference/chat.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .fields import invalid, plain, present
from .tools import call_form, read_tools

ROLES = ("system", "user", "assistant", "tool")
MOST_CHOICES = 16
_FORMATS = ("text", "json_object", "json_schema", "regex")


@dataclass(frozen=True)
class Sampling:
    """How an answer's tokens are chosen. Greedy unless a temperature above 0 asks for sampling."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    form: tuple[str, Any] | None = None  # ("json_schema", schema) or ("regex", pattern): what the answer must match


@dataclass(frozen=True)
class ChatRequest:
    """One validated request for `n` answers to a conversation."""

    messages: list[dict[str, Any]]
    sampling: Sampling
    n: int = 1
    tools: list[dict[str, Any]] = field(default_factory=list)


def parse_chat(fields: Mapping[str, Any], default_max_tokens: int, takes_tools: bool) -> ChatRequest:
    """Validate one request: a row of the DataFrame that MLflow makes of it, or the dict itself.

    Args:
        takes_tools: whether the model's chat template shows tools.

    Raises:
        MlflowException: INVALID_PARAMETER_VALUE (HTTP 400), naming the field.
    """
    given = present(fields)
    if given.get("custom_inputs"):
        raise invalid("custom_inputs", given["custom_inputs"], "this model knows none: leave it out")
    tools, required = read_tools(given, takes_tools)
    form = _form(given.get("response_format"))
    if required and form:
        raise invalid("response_format", given["response_format"], "leave it out where tool_choice asks for a call")
    return ChatRequest(
        messages=_messages(given.get("messages")),
        sampling=_sampling(given, default_max_tokens, call_form(required) if required else form),
        n=_number(given, "n", 1, minimum=1, maximum=MOST_CHOICES, whole=True),
        tools=tools,
    )


def parse_prompt(row: Mapping[str, Any]) -> str:
    """The prompt of a row of `llm/v1/completions`, as it is.

    Raises:
        MlflowException: INVALID_PARAMETER_VALUE, naming the field.
    """
    prompt = row.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise invalid("prompt", prompt, "expected a text that is not empty")
    return prompt


def parse_params(params: Mapping[str, Any], default_max_tokens: int) -> Sampling:
    """The parameters of `llm/v1/completions`, which hold for all rows. A response_format is JSON there.

    Raises:
        MlflowException: INVALID_PARAMETER_VALUE, naming the parameter.
    """
    given = present(params)
    for name, absent in (("seed", -1), ("response_format", "")):  # the defaults of a schema that knows no None
        if given.get(name) == absent:
            del given[name]
    if isinstance(text := given.get("response_format"), str):
        try:
            given["response_format"] = json.loads(text)
        except ValueError:
            raise invalid("response_format", text, "expected JSON, as llm/v1/chat takes it") from None
    return _sampling(given, default_max_tokens, _form(given.get("response_format")))


def _sampling(given: Mapping[str, Any], default_max_tokens: int, form: tuple[str, Any] | None) -> Sampling:
    return Sampling(
        max_tokens=_number(given, "max_tokens", default_max_tokens, minimum=1, whole=True),
        temperature=_number(given, "temperature", 0.0, minimum=0, maximum=2),
        top_p=_number(given, "top_p", 1.0, minimum=0, maximum=1),
        top_k=_number(given, "top_k", 0, minimum=0, whole=True),
        stop=_stop(given.get("stop")),
        seed=_number(given, "seed", 0, minimum=0, maximum=2**63 - 1, whole=True) if "seed" in given else None,
        frequency_penalty=_number(given, "frequency_penalty", 0.0, minimum=-2, maximum=2),
        presence_penalty=_number(given, "presence_penalty", 0.0, minimum=-2, maximum=2),
        form=form,
    )


def _messages(value: Any) -> list[dict[str, Any]]:
    value = plain(value)
    if not isinstance(value, list) or not value:
        raise invalid("messages", value, "expected a list of at least one message")
    return [_message_in(f"messages[{index}]", message) for index, message in enumerate(value)]


def _message_in(where: str, message: Any) -> dict[str, Any]:
    if not isinstance(message, Mapping) or message.get("role") not in ROLES:
        raise invalid(where, message, f"expected a role of {', '.join(ROLES)}")
    message = present(message)
    calls = message.get("tool_calls") or []
    if calls and message["role"] != "assistant":
        raise invalid(f"{where}.tool_calls", calls, "only the assistant calls tools")
    content = message.get("content", "" if calls else None)
    if not isinstance(content, str):
        raise invalid(f"{where}.content", content, "expected a string")
    found: dict[str, Any] = {"role": message["role"], "content": content}
    for call in calls:
        try:
            if not isinstance(call["function"]["name"], str):
                raise TypeError
            json.loads(call["function"]["arguments"])
        except (KeyError, TypeError, ValueError):
            raise invalid(f"{where}.tool_calls", call, "expected a function's name and arguments as JSON") from None
    return found | ({"tool_calls": calls} if calls else {})


def _form(value: Any) -> tuple[str, Any] | None:
    if value is None:
        return None
    kind = value.get("type") if isinstance(value, Mapping) else None
    if kind not in _FORMATS:
        raise invalid("response_format", value, f"expected a type of {', '.join(_FORMATS)}")
    if kind == "json_object":
        return "json_schema", {"type": "object"}
    if kind == "json_schema":
        schema = value["json_schema"].get("schema") if isinstance(value.get("json_schema"), Mapping) else None
        if not isinstance(schema, Mapping):
            raise invalid("response_format", value, "expected json_schema with a schema in it")
        return "json_schema", schema
    if kind == "regex":
        if not isinstance(value.get("regex"), str) or not value["regex"]:
            raise invalid("response_format", value, "expected regex with a pattern")
        return "regex", value["regex"]
    return None


def _number(given: Mapping[str, Any], name: str, default, *, minimum, maximum=math.inf, whole: bool = False):
    value = given.get(name, default)
    expected = f"expected {'a whole number' if whole else 'a number'} of at least {minimum}"
    if maximum < math.inf:
        expected += f" and at most {maximum}"
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise invalid(name, value, expected) from None
    if isinstance(value, bool) or not minimum <= number <= maximum or not (number.is_integer() or not whole):
        raise invalid(name, value, expected)
    return int(value) if whole else number


def _stop(value: Any) -> tuple[str, ...]:
    value = plain(value)
    value = [value] if isinstance(value, str) else value or []
    if not isinstance(value, list) or not all(isinstance(text, str) and text for text in value):
        raise invalid("stop", value, "expected a string or a list of strings, none empty")
    return tuple(value)
