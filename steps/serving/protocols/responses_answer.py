"""A chat's answer as a response of /v1/responses, whole and as events."""

import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from steps.serving.errors import ApiError
from steps.serving.models import ServedModel
from steps.serving.sse import event

_ECHOED = ("instructions", "max_output_tokens", "metadata", "temperature", "top_p")


class ResponseWriter:
    """Writes one response."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._body, self._id, self._created = body, _id("resp"), int(time.time())
        self._sequence = 0

    def whole(self, chat: Mapping[str, Any], model: ServedModel) -> dict[str, Any]:
        """Return the response."""
        choice = chat["choices"][0]
        message = choice["message"]
        output = [_message(_id("msg"), message["content"])] if message.get("content") else []
        output += [_call(_id("fc"), call) for call in message.get("tool_calls") or []]
        return self._response(model, output or [_message(_id("msg"), "")], choice["finish_reason"], chat.get("usage"))

    async def events(self, chunks: AsyncIterator[dict[str, Any]], model: ServedModel) -> AsyncIterator[bytes]:
        """Yield the events of the response, from response.created to response.completed or response.incomplete."""
        start = self._response(model, [], "", None)
        yield self._event("response.created", response=start)
        yield self._event("response.in_progress", response=start)
        items, finish_reason, usage = _Items(self), "stop", None
        async for chunk in chunks:
            usage = chunk.get("usage") or usage
            for choice in chunk["choices"]:
                for piece in items.add(choice["delta"]):
                    yield piece
                finish_reason = choice["finish_reason"] or finish_reason
        for piece in items.close():
            yield piece
        response = self._response(model, items.output, finish_reason, usage)
        yield self._event(f"response.{response['status']}", response=response)

    def error(self, error: ApiError) -> bytes:
        """Return the event that ends a stream after an error."""
        return self._event("error", code=error.code, message=error.message, param=error.param)

    def _event(self, name: str, /, **fields: Any) -> bytes:
        self._sequence += 1
        return event({"type": name, "sequence_number": self._sequence - 1} | fields, name)

    def _response(
        self, model: ServedModel, output: list[dict[str, Any]], finish_reason: str, usage: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        cut = finish_reason == "length"
        status = "incomplete" if cut else "completed" if finish_reason else "in_progress"
        return {name: self._body.get(name) for name in _ECHOED} | {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "error": None,
            "model": model.name,
            "output": output,
            "parallel_tool_calls": self._body.get("parallel_tool_calls") is not False,
            "tool_choice": self._body.get("tool_choice") or "auto",
            "tools": self._body.get("tools") or [],
            "text": self._body.get("text") or {"format": {"type": "text"}},
            "previous_response_id": None,
            "store": False,
            "usage": _usage(usage) if usage else None,
        }


class _Items:
    """The items of a streamed response: at most one message, then calls."""

    def __init__(self, writer: ResponseWriter) -> None:
        self._event = writer._event
        self.output: list[dict[str, Any]] = []
        self._open: dict[str, Any] | None = None

    def add(self, delta: Mapping[str, Any]) -> Iterator[bytes]:
        """Yield the events of a delta of a chat."""
        if delta.get("content"):
            if self._open is None or self._open["type"] != "message":
                yield from self._begin(_message(_id("msg"), "") | {"status": "in_progress", "content": []})
                assert self._open is not None
                part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
                self._open["content"] = [part]
                yield self._at("response.content_part.added", content_index=0, part=dict(part))
            self._open["content"][0]["text"] += delta["content"]
            yield self._at("response.output_text.delta", content_index=0, delta=delta["content"], logprobs=[])
        for call in delta.get("tool_calls") or []:
            if call["function"].get("name"):
                yield from self._begin(_call(_id("fc"), call) | {"arguments": "", "status": "in_progress"})
            if self._open and call["function"].get("arguments"):
                self._open["arguments"] += call["function"]["arguments"]
                yield self._at("response.function_call_arguments.delta", delta=call["function"]["arguments"])

    def close(self) -> Iterator[bytes]:
        """Yield the events that end the open item."""
        item, self._open = self._open, None
        if item is None:
            return
        item["status"] = "completed"
        place = {"output_index": len(self.output) - 1, "item_id": item["id"]}
        if item["type"] == "message":
            part = item["content"][0]
            text = part["text"]
            yield self._event("response.output_text.done", content_index=0, text=text, logprobs=[], **place)
            yield self._event("response.content_part.done", content_index=0, part=part, **place)
        else:
            done = {"arguments": item["arguments"], "name": item["name"]}
            yield self._event("response.function_call_arguments.done", **done, **place)
        yield self._event("response.output_item.done", output_index=place["output_index"], item=item)

    def _begin(self, item: dict[str, Any]) -> Iterator[bytes]:
        yield from self.close()
        self.output.append(item)
        self._open = item
        yield self._event("response.output_item.added", output_index=len(self.output) - 1, item=dict(item))

    def _at(self, name: str, /, **fields: Any) -> bytes:
        assert self._open is not None
        return self._event(name, output_index=len(self.output) - 1, item_id=self._open["id"], **fields)


def _id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"


def _message(name: str, text: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"id": name, "type": "message", "role": "assistant", "status": "completed", "content": [part]}


def _call(name: str, call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    return {
        "id": name,
        "type": "function_call",
        "call_id": call["id"],
        "name": function["name"],
        "arguments": function["arguments"],
        "status": "completed",
    }


def _usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    thought = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens", 0)
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": cached},
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": thought},
        "total_tokens": usage["total_tokens"],
    }
