"""Build the responses of `llm/v1/chat`, whole or in chunks.

They are mlflow.types.llm's ChatCompletionResponse and ChatCompletionChunk.
"""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .tools import parse_calls


@dataclass(frozen=True)
class Choice:
    """One answer, as a client gets it."""

    text: str
    finish_reason: str  # "stop", "length" or "tool_calls"
    tool_calls: tuple[dict[str, Any], ...] = ()
    thought: str = ""

    @classmethod
    def of(cls, text: str, finish_reason: str, tools: Sequence[dict[str, Any]], thought: str = "") -> "Choice":
        """Return an answer, as tool calls if its text consists of calls of the given tools and nothing else."""
        calls = parse_calls(text, {tool["function"]["name"] for tool in tools}) if tools else ()
        if calls:
            return cls("", "tool_calls", calls, thought)
        return cls(text, finish_reason, thought=thought)


def chat_response(
    model: str,
    choices: Sequence[Choice],
    prompt_tokens: int,
    completion_tokens: int,
    thought_tokens: int | None = None,
) -> dict[str, Any]:
    """Return a response with the keys of MLflow's transformers flavor, in the same order.

    Args:
        thought_tokens: how many of `completion_tokens` were thought; None for a model without thoughts.
    """
    return {
        "id": str(uuid.uuid4()),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "usage": _usage(prompt_tokens, completion_tokens, thought_tokens),
        "choices": [
            {"index": index, "finish_reason": choice.finish_reason, "message": _message(choice)}
            for index, choice in enumerate(choices)
        ],
    }


class Chunks:
    """Makes the chunks of one response: OpenAI's chat.completion.chunk objects."""

    def __init__(self, model: str) -> None:
        self._frame = {
            "id": str(uuid.uuid4()),
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
        }
        self._started: set[int] = set()

    def text(self, index: int, piece: str) -> dict[str, Any]:
        """Return a chunk with a piece of the text of a choice."""
        return self._chunk(index, {"content": piece}, None)

    def thought(self, index: int, piece: str) -> dict[str, Any]:
        """Return a chunk with a piece of the thought of a choice."""
        return self._chunk(index, {"reasoning_content": piece}, None)

    def end(self, index: int, choice: Choice) -> dict[str, Any]:
        """Return the last chunk of a choice: its finish reason, and its tool calls if it has any."""
        delta = {"tool_calls": [*choice.tool_calls]} if choice.tool_calls else {"content": ""}
        return self._chunk(index, delta, choice.finish_reason)

    def usage(self, usage: dict[str, Any]) -> dict[str, Any]:
        """Return the last chunk of the response: its token usage, and no choice."""
        return self._frame | {"choices": [], "usage": usage}

    def _chunk(self, index: int, delta: dict[str, Any], finish_reason: str | None) -> dict[str, Any]:
        role = {} if index in self._started else {"role": "assistant"}
        self._started.add(index)
        return self._frame | {"choices": [{"index": index, "delta": role | delta, "finish_reason": finish_reason}]}


def _usage(prompt_tokens: int, completion_tokens: int, thought_tokens: int | None) -> dict[str, Any]:
    details = {} if thought_tokens is None else {"completion_tokens_details": {"reasoning_tokens": thought_tokens}}
    counts = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
    return counts | details


def _message(choice: Choice) -> dict[str, Any]:
    calls = {"tool_calls": [*choice.tool_calls]} if choice.tool_calls else {}
    thought = {"reasoning_content": choice.thought} if choice.thought else {}
    return {"role": "assistant", "content": choice.text} | thought | calls
