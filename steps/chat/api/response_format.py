"""The field `response_format`: what an answer must match."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .fields import invalid

_TYPES = ("text", "json_object", "json_schema", "regex")


@dataclass(frozen=True)
class JsonFormat:
    """An answer must match a JSON schema."""

    schema: Mapping[str, Any]


@dataclass(frozen=True)
class RegexFormat:
    """An answer must match a regular expression."""

    pattern: str


ResponseFormat = JsonFormat | RegexFormat


def parse_response_format(value: Any) -> ResponseFormat | None:
    """Return the response format that a request asks for, or None for free text.

    Raises:
        MlflowException: INVALID_PARAMETER_VALUE (HTTP 400).
    """
    if value is None:
        return None
    kind = value.get("type") if isinstance(value, Mapping) else None
    if kind not in _TYPES:
        raise invalid("response_format", value, f"expected a type of {', '.join(_TYPES)}")
    if kind == "json_object":
        return JsonFormat({"type": "object"})
    if kind == "json_schema":
        schema = value["json_schema"].get("schema") if isinstance(value.get("json_schema"), Mapping) else None
        if not isinstance(schema, Mapping):
            raise invalid("response_format", value, "expected json_schema with a schema in it")
        return JsonFormat(schema)
    if kind == "regex":
        if not isinstance(value.get("regex"), str) or not value["regex"]:
            raise invalid("response_format", value, "expected regex with a pattern")
        return RegexFormat(value["regex"])
    return None
