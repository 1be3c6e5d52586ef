"""The chunks of one choice, while its answer is made."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from .api.logprobs import TokenBytes, chat_logprobs
from .api.requests import ChatRequest
from .api.responses import Choice, Chunks
from .api.tools import may_be_calls
from .batching.generation import Completion, Piece
from .batching.logprobs import TokenLogprob


class ChoiceStream:
    """Turns the pieces of one answer into chunks. Text that may become tool calls is held back."""

    def __init__(self, chunks: Chunks, index: int, request: ChatRequest, token_bytes: TokenBytes) -> None:
        """
        Args:
            index: the number of the choice.
        """
        self._chunks, self._index, self._request, self._token_bytes = chunks, index, request, token_bytes
        self._held, self._may_call = "", bool(request.tools)
        self._logprobs: list[TokenLogprob] = []  # of the held text

    def add(self, piece: Piece) -> Iterator[dict[str, Any]]:
        """Yield the chunk of a piece, if it can be shown."""
        if piece.is_thought:
            yield self._chunks.thought(self._index, piece.text)
            return
        self._held += piece.text
        self._logprobs += piece.logprobs
        self._may_call = self._may_call and may_be_calls(self._held)
        if not self._may_call:
            yield self._show()

    def end(self, completion: Completion) -> Iterator[dict[str, Any]]:
        """Yield the chunks of what was held back, and the finish reason."""
        tools = self._request.tools if self._may_call else []
        parallel = self._request.parallel_tool_calls
        choice = Choice.of(completion.text, completion.finish_reason, tools, parallel)
        if self._held and not choice.tool_calls:
            yield self._show()
        yield from self._chunks.calls(self._index, choice)
        choice = replace(choice, stopped_by=completion.stopped_by)
        yield self._chunks.end(self._index, choice, self._take_logprobs())

    def _show(self) -> dict[str, Any]:
        text, self._held = self._held, ""
        return self._chunks.text(self._index, text, self._take_logprobs())

    def _take_logprobs(self) -> dict[str, Any] | None:
        logprobs, self._logprobs = self._logprobs, []
        return chat_logprobs(logprobs, self._token_bytes) if logprobs else None
