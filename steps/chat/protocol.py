"""The `llm/v1/chat` request and response, as MLflow's transformers flavor reads and writes them.

The schemas are mlflow.types.llm.CHAT_MODEL_INPUT_SCHEMA and CHAT_MODEL_OUTPUT_SCHEMA.
"""

import json
import math
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlflow.exceptions import MlflowException

ROLES = ("system", "user", "assistant", "tool")
# What the schema has and this model does not do: refused, not ignored. `stream` asks for another method.
_UNSUPPORTED = ("frequency_penalty", "presence_penalty", "tools", "custom_inputs")


@dataclass(frozen=True)
class ChatRequest:
    """One validated request. Greedy unless a temperature above 0 asks for sampling."""

    messages: list[dict[str, str]]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = field(default=())


def parse_request(fields: Mapping[str, Any], default_max_tokens: int) -> ChatRequest:
    """Validate one request: a row of the DataFrame that MLflow makes of it, or the dict itself.

    Raises:
        MlflowException: INVALID_PARAMETER_VALUE (HTTP 400), naming the field.
    """
    given = {name: value for name, value in fields.items() if not _is_absent(value)}
    for name in _UNSUPPORTED:
        value = given.get(name)
        if value.size if hasattr(value, "size") else value:
            raise _invalid(name, given[name], "this model does not support it: leave it out")
    if _number(given, "n", 1, minimum=1, whole=True) != 1:
        raise _invalid("n", given["n"], "this model returns one choice: ask n times")
    if given.get("stream"):
        raise _invalid("stream", True, "predict answers at once: leave it out")
    return ChatRequest(
        messages=_messages(given.get("messages")),
        max_tokens=_number(given, "max_tokens", default_max_tokens, minimum=1, whole=True),
        temperature=_number(given, "temperature", 0.0, minimum=0, maximum=2),
        top_p=_number(given, "top_p", 1.0, minimum=0, maximum=1),
        top_k=_number(given, "top_k", 0, minimum=0, whole=True),
        stop=_stop(given.get("stop")),
    )


def response(model: str, text: str, prompt_tokens: int, completion_tokens: int, finish_reason: str) -> dict[str, Any]:
    """One answer in the flavor's own shape, key by key."""
    return {
        "id": str(uuid.uuid4()),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
        "choices": [
            {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": text}},
        ],
    }


def _messages(value: Any) -> list[dict[str, str]]:
    value = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(value, list) or not value:
        raise _invalid("messages", value, "expected a list of at least one message")
    messages = []
    for index, message in enumerate(value):
        if not isinstance(message, Mapping) or message.get("role") not in ROLES:
            raise _invalid(f"messages[{index}]", message, f"expected a role of {', '.join(ROLES)}")
        if not isinstance(message.get("content"), str):
            raise _invalid(f"messages[{index}].content", message.get("content"), "expected a string")
        messages.append({"role": message["role"], "content": message["content"]})
    return messages


def _number(given: Mapping[str, Any], name: str, default, *, minimum, maximum=math.inf, whole: bool = False):
    value = given.get(name, default)
    expected = f"expected {'a whole number' if whole else 'a number'} of at least {minimum}"
    if maximum < math.inf:
        expected += f" and at most {maximum}"
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise _invalid(name, value, expected) from None
    if isinstance(value, bool) or not minimum <= number <= maximum or not (number.is_integer() or not whole):
        raise _invalid(name, value, expected)
    return int(number) if whole else number


def _stop(value: Any) -> tuple[str, ...]:
    value = value.tolist() if hasattr(value, "tolist") else value
    value = [value] if isinstance(value, str) else value or []
    if not isinstance(value, list) or not all(isinstance(text, str) and text for text in value):
        raise _invalid("stop", value, "expected a string or a list of strings, none empty")
    return tuple(value)


def _is_absent(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))  # what pandas makes of None


def _invalid(name: str, value: Any, expected: str) -> MlflowException:
    shown = json.dumps(value, default=str, ensure_ascii=False)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    return MlflowException.invalid_parameter_value(f"{name} is {shown}; {expected}")
