"""A chat's answer as a message of Anthropic's /v1/messages, whole and as events."""

import json
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from steps.serving.errors import ApiError
from steps.serving.models import ServedModel
from steps.serving.sse import event

_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def whole(chat: dict[str, Any], model: ServedModel) -> dict[str, Any]:
    """Return the message."""
    choice = chat["choices"][0]
    message = choice["message"]
    blocks: list[dict[str, Any]] = []
    if message.get("content"):
        blocks.append({"type": "text", "text": message["content"]})
    for call in message.get("tool_calls") or []:
        arguments = json.loads(call["function"]["arguments"] or "{}")
        blocks.append(_tool_use(call) | {"input": arguments})
    return _message(model, blocks, _end(choice), _usage(chat.get("usage")))


async def events(chunks: AsyncIterator[dict[str, Any]], model: ServedModel) -> AsyncIterator[bytes]:
    """Yield the events of the message, from message_start to message_stop."""
    yield _event("message_start", message=_message(model, [], {}, _usage(None)))
    blocks, usage = _Blocks(), None
    end: dict[str, str | None] = {"stop_reason": "end_turn", "stop_sequence": None}
    async for chunk in chunks:
        usage = chunk.get("usage") or usage
        for choice in chunk["choices"]:
            for piece in blocks.add(choice["delta"]):
                yield piece
            end = _end(choice) if choice["finish_reason"] else end
    for piece in blocks.close():
        yield piece
    yield _event("message_delta", delta=end, usage=_usage(usage))
    yield _event("message_stop")


def error(failure: ApiError) -> bytes:
    """Return the event that ends a stream after an error."""
    return event(failure.anthropic(), "error")


class _Blocks:
    """The blocks of a streamed message: text, and one block for each call."""

    def __init__(self) -> None:
        self._count, self._open = 0, ""

    def add(self, delta: Mapping[str, Any]) -> Iterator[bytes]:
        """Yield the events of a delta of a chat."""
        if delta.get("content"):
            if self._open != "text":
                yield from self._begin("text", {"type": "text", "text": ""})
            yield self._delta({"type": "text_delta", "text": delta["content"]})
        for call in delta.get("tool_calls") or []:
            if call["function"].get("name"):
                yield from self._begin("tool_use", _tool_use(call) | {"input": {}})
            if call["function"].get("arguments"):
                yield self._delta({"type": "input_json_delta", "partial_json": call["function"]["arguments"]})

    def close(self) -> Iterator[bytes]:
        """Yield the event that ends the open block."""
        if self._open:
            self._open = ""
            yield _event("content_block_stop", index=self._count - 1)

    def _begin(self, kind: str, block: dict[str, Any]) -> Iterator[bytes]:
        yield from self.close()
        self._open, self._count = kind, self._count + 1
        yield _event("content_block_start", index=self._count - 1, content_block=block)

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return _event("content_block_delta", index=self._count - 1, delta=delta)


def _event(name: str, /, **fields: Any) -> bytes:
    return event({"type": name} | fields, name)


def _end(choice: Mapping[str, Any]) -> dict[str, str | None]:
    """Return why a complete choice has ended."""
    if choice.get("stop_reason"):
        return {"stop_reason": "stop_sequence", "stop_sequence": choice["stop_reason"]}
    return {"stop_reason": _STOP_REASONS[choice["finish_reason"]], "stop_sequence": None}


def _message(
    model: ServedModel, content: list[dict[str, Any]], end: dict[str, str | None], usage: dict[str, int]
) -> dict[str, Any]:
    message: dict[str, Any] = {
        "id": f"msg_{uuid.uuid4().hex}",
        "type": "message",
        "role": "assistant",
        "model": model.name,
        "content": content,
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }
    return message | end


def _tool_use(call: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "tool_use", "id": call["id"], "name": call["function"]["name"]}


def _usage(usage: Mapping[str, Any] | None) -> dict[str, int]:
    """Return Anthropic's usage. Its input tokens do not count those that the cache held."""
    usage = usage or {}
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    return {
        "input_tokens": usage.get("prompt_tokens", 0) - cached,
        "output_tokens": usage.get("completion_tokens", 0),
        "cache_read_input_tokens": cached,
        "cache_creation_input_tokens": 0,
    }
