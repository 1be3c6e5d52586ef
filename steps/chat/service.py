"""Requests in, responses out: parse the fields, ask the engine, and build OpenAI's responses."""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException

from .api.requests import ChatRequest, parse_chat, parse_params
from .api.responses import Choice, Chunks, chat_response
from .api.tools import may_be_calls
from .batching.engine import Engine
from .batching.generation import Completion, Generation
from .completions import complete_rows, result_row
from .integrity import start_check
from .settings import Settings
from .tracing import traced


class Service:
    """A loaded model."""

    def __init__(self, folder: Path, checksums: Path, config: Mapping[str, Any]) -> None:
        """
        Args:
            folder: the converted folder.
            checksums: see integrity.start_check.
            config: the model config. `model` is the name in the responses. `max_tokens` is the limit of an answer if
                the request has none. `trace` says whether each request leaves an MLflow trace. Settings reads the rest.

        Raises:
            MlflowException: a file is damaged, or a value of the config is invalid.
        """
        settings = Settings.of(config)
        check = start_check(folder, checksums)
        self.engine = Engine(folder, settings)
        try:
            check.result()
        except MlflowException:
            self.engine.close()
            raise
        self._name, self._max_tokens, self._trace = config["model"], config["max_tokens"], config.get("trace", False)

    def chat(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the responses to chat requests. Check every row before the first answer, then answer all at once.

        Raises:
            MlflowException: a field of a row is invalid, a prompt is too long, the queue is full, or the timeout is
                over.
        """
        with traced(self._trace, self._name, rows) as record:
            requests = [self._parse(row) for row in rows]
            if any(row.get("stream") is True for row in rows):
                raise MlflowException.invalid_parameter_value(
                    "stream is true; predict returns whole answers: leave stream out, or call predict_stream"
                )
            submitted: list[list[Generation]] = []
            try:
                for request in requests:
                    submitted.append(self._submit(request, stream=False, wait=len(rows) > 1))
                answers = [[generation.wait() for generation in generations] for generations in submitted]
            finally:
                _cancel(generation for generations in submitted for generation in generations)
            responses = [self._respond(*pair) for pair in zip(requests, answers, strict=True)]
            record(responses, [completion for completions in answers for completion in completions])
        return responses

    def stream(self, row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the response to a chat request in chunks: pieces of text, the finish reasons, the usage.

        Raises:
            MlflowException: as for chat.
        """
        chunks, completions = Chunks(self._name), []
        with traced(self._trace, self._name, [row]) as record:
            request = self._parse(row)
            generations = self._submit(request, stream=True)
            try:
                for index, generation in enumerate(generations):
                    completions.append((yield from _stream_choice(chunks, index, generation, request.tools)))
            finally:
                _cancel(generations)
            response = self._respond(request, completions)
            record([response], completions)
            yield chunks.usage(response["usage"])

    def complete(self, rows: Sequence[Mapping[str, Any]], params: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return a result row for each prompt, in order. A prompt that cannot be continued has an error in its row.

        Raises:
            MlflowException: a parameter is invalid.
        """
        sampling = parse_params(params, self._max_tokens)
        with traced(self._trace, self._name, rows) as record:
            results = complete_rows(self.engine, rows, sampling)
            result_rows = [result_row(result) for result in results]
            record(result_rows, [result for result in results if isinstance(result, Completion)])
        return result_rows

    def _parse(self, row: Mapping[str, Any]) -> ChatRequest:
        return parse_chat(row, self._max_tokens, self.engine.tokenizer.supports_tools)

    def _submit(self, request: ChatRequest, stream: bool, wait: bool = False) -> list[Generation]:
        """Queue each choice of a request. See Engine.submit for `stream` and `wait`."""
        prompt = self.engine.tokenizer.encode_chat(request.messages, request.tools)
        generations: list[Generation] = []
        try:
            for choice in range(request.n):
                generations.append(self.engine.submit(prompt, request.sampling, choice, wait=wait, stream=stream))
        except MlflowException:
            _cancel(generations)
            raise
        return generations

    def _respond(self, request: ChatRequest, completions: Sequence[Completion]) -> dict[str, Any]:
        choices = [Choice.of(completion.text, completion.finish_reason, request.tools) for completion in completions]
        completion_tokens = sum(completion.completion_tokens for completion in completions)
        return chat_response(self._name, choices, completions[0].prompt_tokens, completion_tokens)


def _stream_choice(
    chunks: Chunks, index: int, generation: Generation, tools: list[dict[str, Any]]
) -> Generator[dict[str, Any], None, Completion]:
    """Yield the chunks of one choice, and return its completion. Text that may become tool calls is held back."""
    held, may_call = "", bool(tools)
    for piece in generation:
        held += piece
        may_call = may_call and may_be_calls(held)
        if not may_call:
            yield chunks.text(index, held)
            held = ""
    completion = generation.wait()
    choice = Choice.of(completion.text, completion.finish_reason, tools if may_call else [])
    if held and not choice.tool_calls:
        yield chunks.text(index, held)
    yield chunks.end(index, choice)
    return completion


def _cancel(generations: Iterable[Generation]) -> None:
    for generation in generations:
        generation.cancel()
