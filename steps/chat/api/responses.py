"""Build the responses of the OpenAI API, whole or in chunks: chat.completion, chat.completion.chunk.

The keys are OpenAI's, and mlflow.types.llm's ChatCompletionResponse and ChatCompletionChunk read them too.
"""

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .tools import parse_calls

_FRAGMENT = 24  # characters of a call's arguments in one chunk


@dataclass(frozen=True)
class Choice:
    """One answer, as a client gets it."""

    text: str
    finish_reason: str  # "stop", "length" or "tool_calls"
    tool_calls: tuple[dict[str, Any], ...] = ()
    thought: str = ""
    logprobs: dict[str, Any] | None = None
    stopped_by: str = ""  # the stop string that ended it

    @classmethod
    def of(
        cls,
        text: str,
        finish_reason: str,
        tools: Sequence[dict[str, Any]],
        parallel: bool = True,
        logprobs: dict[str, Any] | None = None,
        thought: str = "",
    ) -> "Choice":
        """Return an answer, as tool calls if its text consists of calls of the given tools and nothing else.

        Args:
            parallel: whether to keep more than the first call.
            logprobs: what chat_logprobs returns.
        """
        calls = parse_calls(text, {tool["function"]["name"] for tool in tools}) if tools else ()
        calls = calls if parallel else calls[:1]
        if calls:
            return cls("", "tool_calls", calls, thought, logprobs)
        return cls(text, finish_reason, (), thought, logprobs)


@dataclass(frozen=True)
class Served:
    """What every response of a model says about it."""

    model: str
    fingerprint: str | None = None

    def frame(self, prefix: str, kind: str) -> dict[str, Any]:
        """Return the keys that all responses have.

        Args:
            prefix: how the id begins.
            kind: the key `object`.
        """
        return {
            "id": f"{prefix}-{uuid.uuid4().hex}",
            "object": kind,
            "created": int(time.time()),
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }


def usage_of(
    prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0, thought_tokens: int | None = None
) -> dict[str, Any]:
    """Return the key `usage`.

    Args:
        cached_tokens: tokens of the prompt that the prompt cache held.
        thought_tokens: how many of `completion_tokens` were thought; None for a model without thoughts.
    """
    details = {} if thought_tokens is None else {"completion_tokens_details": {"reasoning_tokens": thought_tokens}}
    return details | {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens},
    }


def chat_response(served: Served, choices: Sequence[Choice], usage: dict[str, Any]) -> dict[str, Any]:
    """Return a whole response."""
    return served.frame("chatcmpl", "chat.completion") | {
        "service_tier": None,
        "usage": usage,
        "choices": [
            {
                "index": index,
                "finish_reason": choice.finish_reason,
                "message": _message(choice),
                "logprobs": choice.logprobs,
            }
            | _stop_reason(choice)
            for index, choice in enumerate(choices)
        ],
    }


class Chunks:
    """Makes the chunks of one response: OpenAI's chat.completion.chunk objects."""

    def __init__(self, served: Served, include_usage: bool = False) -> None:
        """
        Args:
            include_usage: the last chunk has the usage. Then the key is null in all others.
        """
        self._frame = served.frame("chatcmpl", "chat.completion.chunk")
        self._no_usage: dict[str, Any] = {"usage": None} if include_usage else {}

    def role(self, index: int) -> dict[str, Any]:
        """Return the first chunk of a choice."""
        return self._chunk(index, {"role": "assistant", "content": ""}, None)

    def text(self, index: int, piece: str, logprobs: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return a chunk with a piece of the text of a choice."""
        return self._chunk(index, {"content": piece}, None, logprobs)

    def thought(self, index: int, piece: str) -> dict[str, Any]:
        """Return a chunk with a piece of the thought of a choice."""
        return self._chunk(index, {"reasoning_content": piece}, None)

    def calls(self, index: int, choice: Choice) -> Iterator[dict[str, Any]]:
        """Yield the chunks of a choice's tool calls: of each call its name, and then pieces of its arguments."""
        for number, call in enumerate(choice.tool_calls):
            function, arguments = call["function"], call["function"]["arguments"]
            first = call | {"index": number, "function": function | {"arguments": ""}}
            yield self._chunk(index, {"tool_calls": [first]}, None)
            for start in range(0, len(arguments), _FRAGMENT):
                fragment = {"index": number, "function": {"arguments": arguments[start : start + _FRAGMENT]}}
                yield self._chunk(index, {"tool_calls": [fragment]}, None)

    def end(self, index: int, choice: Choice, logprobs: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the last chunk of a choice: its finish reason."""
        chunk = self._chunk(index, {}, choice.finish_reason, logprobs)
        chunk["choices"][0] |= _stop_reason(choice)
        return chunk

    def usage(self, usage: dict[str, Any]) -> dict[str, Any]:
        """Return the last chunk of the response: its token usage, and no choice."""
        return self._frame | {"choices": [], "usage": usage}

    def _chunk(
        self, index: int, delta: dict[str, Any], finish_reason: str | None, logprobs: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "finish_reason": finish_reason, "logprobs": logprobs}
        return self._frame | {"choices": [choice]} | self._no_usage


def _stop_reason(choice: Choice) -> dict[str, Any]:
    """Return the key `stop_reason`, as vLLM has it, if a stop string ended the answer."""
    return {"stop_reason": choice.stopped_by} if choice.stopped_by and not choice.tool_calls else {}


def _message(choice: Choice) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": choice.text, "refusal": None}
    if choice.thought:
        message["reasoning_content"] = choice.thought
    return message | {"content": None, "tool_calls": [*choice.tool_calls]} if choice.tool_calls else message
