"""Answers of `llm/v1/chat`, whole and in chunks: mlflow.types.llm's ChatCompletionResponse and ChatCompletionChunk."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .tools import parse_calls


@dataclass(frozen=True)
class Choice:
    """One answer as a client sees it."""

    text: str
    finish_reason: str  # stop, length or tool_calls
    tool_calls: tuple[dict[str, Any], ...] = ()

    @classmethod
    def of(cls, text: str, finish_reason: str, tools: Sequence[dict[str, Any]]) -> "Choice":
        """An answer, read as calls where it is nothing but calls of the tools that the request names."""
        calls = parse_calls(text, {tool["function"]["name"] for tool in tools}) if tools else ()
        return cls("", "tool_calls", calls) if calls else cls(text, finish_reason)


def chat_response(model: str, choices: Sequence[Choice], prompt_tokens: int, completion_tokens: int) -> dict[str, Any]:
    """One answer in the transformers flavor's own shape, key by key."""
    return {
        "id": str(uuid.uuid4()),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "usage": _usage(prompt_tokens, completion_tokens),
        "choices": [
            {"index": index, "finish_reason": choice.finish_reason, "message": _message(choice)}
            for index, choice in enumerate(choices)
        ],
    }


class Chunks:
    """The chunks of one streamed answer: OpenAI's chat.completion.chunk objects."""

    def __init__(self, model: str) -> None:
        self._frame = {
            "id": str(uuid.uuid4()),
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
        }
        self._started: set[int] = set()

    def text(self, index: int, piece: str) -> dict[str, Any]:
        """A piece of the text of a choice."""
        return self._chunk(index, {"content": piece}, None)

    def end(self, index: int, choice: Choice) -> dict[str, Any]:
        """The end of a choice: its calls, if it is calls, and why it ended."""
        return self._chunk(
            index, {"tool_calls": [*choice.tool_calls]} if choice.tool_calls else {"content": ""}, choice.finish_reason
        )

    def usage(self, usage: dict[str, int]) -> dict[str, Any]:
        """The last chunk, without choices: the usage that the whole response has."""
        return self._frame | {"choices": [], "usage": usage}

    def _chunk(self, index: int, delta: dict[str, Any], finish_reason: str | None) -> dict[str, Any]:
        role = {} if index in self._started else {"role": "assistant"}
        self._started.add(index)
        return self._frame | {"choices": [{"index": index, "delta": role | delta, "finish_reason": finish_reason}]}


def _usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def _message(choice: Choice) -> dict[str, Any]:
    calls = {"tool_calls": [*choice.tool_calls]} if choice.tool_calls else {}
    return {"role": "assistant", "content": choice.text} | calls
