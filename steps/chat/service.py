"""Requests in, answers out: what the model does with an engine."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException

from .api.requests import ChatRequest, parse_chat, parse_params, parse_prompt
from .api.responses import Choice, Chunks, chat_response
from .api.tools import may_be_calls
from .batching.answer import Answer, Completion
from .batching.engine import Engine
from .integrity import start_check
from .settings import Settings
from .tracing import traced


class Service:
    """A loaded model."""

    def __init__(self, folder: Path, checksums: Path, config: Mapping[str, Any]) -> None:
        """
        Args:
            config: `model`, the name in the answers; `max_tokens`, of an answer where the request says nothing;
                `trace`, whether each request leaves an MLflow trace; and what Settings takes.

        Raises:
            MlflowException: the files are damaged, or the config is wrong.
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
        """Answer conversations, all at the same time. Every row is checked before the first is answered.

        Raises:
            MlflowException: a field of a row is invalid, a prompt is too long, the queue is full or the time over.
        """
        with traced(self._trace, self._name, rows) as record:
            requests = [self._parse(row) for row in rows]
            if any(row.get("stream") is True for row in rows):
                raise MlflowException.invalid_parameter_value(
                    "stream is true; predict answers at once: leave it out, or call predict_stream"
                )
            asked: list[list[Answer]] = []
            try:
                for request in requests:
                    asked.append(self._ask(request, pieces=False, wait=len(rows) > 1))
                done = [[answer.wait() for answer in answers] for answers in asked]
            finally:
                _cancel(answer for answers in asked for answer in answers)
            responses = [self._respond(request, found) for request, found in zip(requests, done, strict=True)]
            record(responses, [completion for found in done for completion in found])
        return responses

    def stream(self, row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Answer a conversation in chunks: the text as it is made, why it ended, what it took.

        Raises:
            MlflowException: as chat.
        """
        chunks, done = Chunks(self._name), []
        with traced(self._trace, self._name, [row]) as record:
            request = self._parse(row)
            answers = self._ask(request, pieces=True)
            try:
                for index, answer in enumerate(answers):
                    held, tools = "", request.tools  # nothing is shown while it may become calls
                    for piece in answer:
                        held += piece
                        if not (tools and may_be_calls(held)):
                            yield chunks.text(index, held)
                            held, tools = "", []
                    done.append(answer.completion)
                    choice = Choice.of(answer.completion.text, answer.completion.finish_reason, tools)
                    if held and not choice.tool_calls:
                        yield chunks.text(index, held)
                    yield chunks.end(index, choice)
            finally:
                _cancel(answers)
            response = self._respond(request, done)
            record([response], done)
            yield chunks.usage(response["usage"])

    def complete(self, rows: Sequence[Mapping[str, Any]], params: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Continue texts. A row that cannot be continued has an error, and the others their text.

        The longest are begun first, as many at a time as `parallel` and the memory for keys and values allow.

        Raises:
            MlflowException: a parameter is invalid.
        """
        sampling = parse_params(params, self._max_tokens)
        found: list[dict[str, Any] | None] = [None] * len(rows)
        prompts: dict[int, list[int]] = {}
        for index, row in enumerate(rows):
            try:
                prompts[index] = self.engine.prompts.text(parse_prompt(row))
            except MlflowException as error:
                found[index] = _failed(error)
        running: deque[tuple[int, Answer]] = deque()
        try:
            with traced(self._trace, self._name, rows) as record:
                done: list[Completion] = []

                def collect() -> None:
                    index, answer = running.popleft()
                    try:
                        done.append(answer.wait())
                        found[index] = _completed(done[-1])
                    except MlflowException as error:
                        found[index] = _failed(error)

                for index in sorted(prompts, key=lambda index: -len(prompts[index])):
                    if len(running) >= 2 * self.engine.settings.parallel:
                        collect()
                    try:
                        answer = self.engine.submit(prompts[index], sampling, strip=False, wait=True, pieces=False)
                        running.append((index, answer))
                    except MlflowException as error:
                        found[index] = _failed(error)
                while running:
                    collect()
                record(found, done)
        finally:
            _cancel(answer for _, answer in running)
        return found

    def _parse(self, row: Mapping[str, Any]) -> ChatRequest:
        return parse_chat(row, self._max_tokens, self.engine.prompts.takes_tools)

    def _ask(self, request: ChatRequest, pieces: bool, wait: bool = False) -> list[Answer]:
        """Queue each choice of a request; rows of a DataFrame wait for room, others are refused where there is none."""
        prompt = self.engine.prompts.chat(request.messages, request.tools)
        asked: list[Answer] = []
        try:
            for choice in range(request.n):
                asked.append(self.engine.submit(prompt, request.sampling, choice, wait=wait, pieces=pieces))
        except MlflowException:
            _cancel(asked)
            raise
        return asked

    def _respond(self, request: ChatRequest, done: Sequence[Completion]) -> dict[str, Any]:
        choices = [Choice.of(completion.text, completion.finish_reason, request.tools) for completion in done]
        return chat_response(
            self._name, choices, done[0].prompt_tokens, sum(completion.completion_tokens for completion in done)
        )


_EMPTY = {"text": None, "finish_reason": None, "prompt_tokens": None, "completion_tokens": None, "error": None}


def _cancel(answers: Iterable[Answer]) -> None:
    for answer in answers:
        answer.cancel()


def _completed(completion: Completion) -> dict[str, Any]:
    return {name: getattr(completion, name) for name in _EMPTY if name != "error"} | {"error": None}


def _failed(error: MlflowException) -> dict[str, Any]:
    return _EMPTY | {"error": error.message}
