"""The field `response_format`: what an answer must match."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .fields import invalid

_TYPES = ("text", "json_object", "json_schema", "regex")
MAX_PATTERN = 4_000  # characters; a pattern of 8 million characters held the engine for 36 s
MAX_SCHEMA = 200_000  # characters of the schema as JSON


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
        ModelError: INVALID_PARAMETER_VALUE (HTTP 400).
    """
    if value is None:
        return None
    kind = value.get("type") if isinstance(value, Mapping) else None
    if not isinstance(kind, str) or kind not in _TYPES:
        raise invalid("response_format", value, f"expected a type of {', '.join(_TYPES)}")
    if kind == "regex":
        return _regex(value)
    if kind in ("json_object", "json_schema"):
        return _json(value, kind)
    return None


def _regex(value: Mapping[str, Any]) -> RegexFormat:
    pattern = value.get("regex")
    if not isinstance(pattern, str) or not pattern:
        raise invalid("response_format", value, "expected regex with a pattern")
    if len(pattern) > MAX_PATTERN:
        expected = f"expected a pattern of at most {MAX_PATTERN} characters; this one has {len(pattern)}"
        raise invalid("response_format", value, expected)
    return RegexFormat(pattern)


def _json(value: Mapping[str, Any], kind: str) -> JsonFormat:
    """Return a schema as OpenAI's clients send it, in json_schema, or as llama.cpp's do, in the format itself."""
    outer = value.get("json_schema")
    schema = outer.get("schema") if isinstance(outer, Mapping) else None
    if schema is None:
        schema = value.get("schema")
    if schema is None and kind == "json_object":
        schema = {"type": "object"}
    if not isinstance(schema, Mapping):
        raise invalid("response_format", value, "expected json_schema with a schema in it")
    check_schema_size("response_format", schema)
    return JsonFormat(schema)


def check_schema_size(name: str, schema: Any) -> None:
    """Raise ModelError if a schema is too long for the compiler.

    Args:
        name: the field that it is in.
    """
    size = len(json.dumps(schema))
    if size > MAX_SCHEMA:
        expected = f"expected a schema of at most {MAX_SCHEMA} characters; this one has {size}"
        raise invalid(name, schema, expected)
