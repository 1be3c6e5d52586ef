"""What /openapi.json says about bodies and errors. The handlers check the bodies themselves, field by field."""

from typing import Any

_ANY: dict[str, Any] = {}
_MESSAGES = {"type": "array", "minItems": 1, "items": {"type": "object", "required": ["role"]}}
_BODIES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "chat": ({"messages": _MESSAGES, "model": {"type": "string"}, "stream": {"type": "boolean"}}, ["messages"]),
    "completion": ({"prompt": _ANY, "model": {"type": "string"}, "stream": {"type": "boolean"}}, ["prompt"]),
    "response": ({"input": _ANY, "model": {"type": "string"}, "stream": {"type": "boolean"}}, ["input"]),
    "message": (
        {"messages": _MESSAGES, "max_tokens": {"type": "integer"}, "stream": {"type": "boolean"}},
        ["messages", "max_tokens"],
    ),
    "count": ({"messages": _MESSAGES}, ["messages"]),
    "tokenize": ({"prompt": {"type": "string"}, "messages": _MESSAGES}, []),
    "detokenize": ({"tokens": {"type": "array", "items": {"type": "integer", "minimum": 0}}}, ["tokens"]),
}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type"],
            "properties": {"message": {"type": "string"}, "type": {"type": "string"}},
        }
    },
}
_STATUSES = (400, 401, 403, 404, 405, 408, 413, 415, 422, 429, 500, 503, 504)
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": "an error", "content": {"application/json": {"schema": _ERROR}}} for status in _STATUSES
}


def body_of(name: str) -> dict[str, Any]:
    """Return the description of a JSON body for FastAPI's `openapi_extra`."""
    properties, required = _BODIES[name]
    schema = {"type": "object", "properties": properties, "required": required}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
