"""Read the body of a request: its size, its time, its type, its JSON, and the limits that the server sets on fields."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from starlette.requests import ClientDisconnect, Request

from steps.serving.context import context_of
from steps.serving.errors import ApiError
from steps.serving.jobs import ClientGone
from steps.serving.limits import Limits
from steps.serving.progress import progress_of

_TOKEN_FIELDS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


async def read_bytes(request: Request) -> bytes:
    """Return the body.

    Raises:
        ApiError: it is larger than the limit, or takes longer.
        ClientGone: the client closed the connection.
    """
    limits = context_of(request).limits
    most = int(limits.body_mb * 1e6)
    refusal = ApiError(413, f"the body is larger than {limits.body_mb:g} MB", "body_too_large")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most:
        raise refusal
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_s):
            async for part in request.stream():
                body += part
                if len(body) > most:
                    raise refusal
    except TimeoutError:
        headers = {"Connection": "close"}
        raise ApiError(408, f"the body took longer than {limits.body_s:g} s", "timeout", headers=headers) from None
    except ClientDisconnect:
        raise ClientGone from None
    return bytes(body)


async def read_json(request: Request) -> dict[str, Any]:
    """Return the body as a JSON object whose fields are within the limits.

    Raises:
        ApiError: it is no JSON object, or a field is over a limit.
    """
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, "the content type is not application/json", "unsupported_media_type")
    data = await read_bytes(request)
    try:
        body = json.loads(data, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise ApiError(400, "the body is not valid JSON in UTF-8", "invalid_json") from None
    if not isinstance(body, dict):
        raise ApiError(400, "the body is not a JSON object", "invalid_json")
    progress_of(request.scope).body = body
    _check_limits(body, context_of(request).limits)
    return body


def streams(body: Mapping[str, Any]) -> bool:
    """Return the field `stream`. Raise ApiError if it is neither true nor false."""
    return flag(body, "stream")


def flag(body: Mapping[str, Any], name: str) -> bool:
    """Return a field that is true or false, and false if it is absent or null. Raise ApiError for another value."""
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise ApiError(400, f"{name}: expected true or false", "invalid_value", name)
    return bool(value)


def _check_limits(body: Mapping[str, Any], limits: Limits) -> None:
    for name in ("messages", "input"):
        messages = body.get(name)
        if isinstance(messages, list) and len(messages) > limits.messages:
            raise ApiError(400, f"{name}: this server takes {limits.messages} at most", "too_many_messages", name)
    for name in _TOKEN_FIELDS:
        value = body.get(name)
        if isinstance(value, int | float) and value > limits.tokens:
            raise ApiError(400, f"{name}: this server takes {limits.tokens} at most", "too_many_tokens", name)


def _no_number(name: str) -> None:
    raise ValueError(name)
