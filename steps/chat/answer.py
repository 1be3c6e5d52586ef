"""The answer to one chat request that a server works on: queued, and readable whole or in chunks."""

from collections.abc import Callable, Iterator
from typing import Any

from .batching.generation import Completion, Generation


class Answer:
    """An answer in the making. One thread reads it; any thread may cancel it."""

    def __init__(
        self,
        generations: list[Generation],
        chunks: Callable[["Answer"], Iterator[dict[str, Any]]],
        response: Callable[["Answer"], dict[str, Any]],
    ) -> None:
        """
        Args:
            generations: a queued generation for each choice.
            chunks, response: read the generations. They append what is complete to `completions`.
        """
        self.generations = generations
        self.completions: list[Completion] = []
        self._chunks, self._response = chunks, response

    def chunks(self) -> Iterator[dict[str, Any]]:
        """Yield OpenAI's chunks. See service.Service.stream."""
        return self._chunks(self)

    def response(self) -> dict[str, Any]:
        """Wait for the whole answer, and return OpenAI's response."""
        return self._response(self)

    def cancel(self) -> None:
        """Give the answer up. Its rows of the KV cache are free before the next token."""
        for generation in self.generations:
            generation.cancel()
