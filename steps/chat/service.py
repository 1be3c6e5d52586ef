"""Requests in, responses out: parse the fields, ask the engine, and build OpenAI's responses."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException

from .api.logprobs import chat_logprobs
from .api.requests import ChatRequest, parse_chat, parse_params
from .api.responses import Choice, Chunks, Served, chat_response, usage_of
from .batching.engine import Engine, OpenSession
from .batching.generation import Completion, Generation, interleaved
from .completions import complete_rows, result_row
from .errors import ModelError, refuse_copy
from .integrity import start_check
from .settings import Settings
from .streaming import ChoiceStream
from .text_completions import TextCompletions
from .tracing import traced

Watch = Callable[[Generation], None]  # is given each generation of a request when it is queued
Wake = Callable[[], None]  # is called when there may be more of an answer


class Service:
    """A loaded model.

    A server that must give answers up in place of their callers passes `watch`.
    """

    __reduce_ex__ = refuse_copy

    def __init__(
        self,
        folder: Path,
        checksums: Path,
        config: Mapping[str, Any],
        open_session: OpenSession | None = None,
        root: Path | None = None,
    ) -> None:
        """
        Args:
            folder, open_session: see Engine.
            checksums: see integrity.start_check.
            config: the model config. `model` is the name in the responses. `max_tokens` is the limit of an answer if
                the request has none. `trace` says whether each request leaves an MLflow trace. Settings reads the rest.
            root: the folder that the checksums are of, if it is not `folder`.

        Raises:
            MlflowException: a file is damaged, or a value of the config is invalid.
        """
        settings = Settings.of(config)
        check = start_check(root, checksums, "") if root else start_check(folder, checksums)
        self.engine = Engine(folder, settings, open_session)
        try:
            check.result()
        except MlflowException:
            self.engine.close()
            raise
        self._max_tokens, self._trace = config["max_tokens"], config.get("trace", False)
        self.served = Served(config["model"], f"fp_{hashlib.sha256(checksums.read_bytes()).hexdigest()[:12]}")
        self.folder = folder
        self._text = TextCompletions(self.engine, self.served)

    def chat(self, rows: Sequence[Mapping[str, Any]], watch: Watch | None = None) -> list[dict[str, Any]]:
        """Return the responses to chat requests. Check every row before the first answer, then answer all at once.

        Raises:
            ModelError: a field of a row is invalid, a prompt is too long, the queue is full, the timeout is over, or
                this process is a fork of the one that loaded the model. With several rows the message names the row.
        """
        with traced(self._trace, self._name, rows) as record:
            self.engine.check_process()
            requests, prompts = [], []
            for number, row in enumerate(rows):
                try:
                    requests.append(self._parse(row, stream=False))
                    prompts.append(self._prompt(requests[-1]))
                except ModelError as error:
                    raise (error.in_row(number) if len(rows) > 1 else error) from None
            submitted: list[list[Generation]] = []
            try:
                for request, prompt in zip(requests, prompts, strict=True):
                    submitted.append(self._submit(request, prompt, stream=False, wait=len(rows) > 1, watch=watch))
                answers = [[generation.wait() for generation in generations] for generations in submitted]
            finally:
                _cancel(generation for generations in submitted for generation in generations)
            responses = [self._respond(*pair) for pair in zip(requests, answers, strict=True)]
            record(responses, [completion for completions in answers for completion in completions])
        return responses

    @property
    def traces(self) -> bool:
        """Return whether each request leaves an MLflow trace, which takes time at the end of its answer."""
        return bool(self._trace)

    def stream(
        self, row: Mapping[str, Any], watch: Watch | None = None, wake: Wake | None = None
    ) -> Iterator[dict[str, Any]]:
        """Return the chunks of the response to a chat request: the roles, pieces of text, the finish reasons.

        The request is checked and queued when this returns. To close the iterator ends the answer.

        Args:
            wake: see generation.interleaved. With it the iterator never waits: an empty chunk says that none is there.

        Raises:
            ModelError: as for chat; at the call, except for what happens while the answer is made.
        """
        chunks = self._stream(row, watch, wake)
        next(chunks)
        return chunks

    def complete(self, rows: Sequence[Mapping[str, Any]], params: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return a result row for each prompt, in order. A prompt that cannot be continued has an error in its row.

        Raises:
            ModelError: a parameter is invalid, or this process is a fork of the one that loaded the model.
        """
        self.engine.check_process()
        sampling = parse_params(params, self._max_tokens)
        with traced(self._trace, self._name, rows) as record:
            results = complete_rows(self.engine, rows, sampling)
            result_rows = [result_row(result) for result in results]
            record(result_rows, [result for result in results if isinstance(result, Completion)])
        return result_rows

    def text_completion(self, body: Mapping[str, Any], watch: Watch | None = None) -> dict[str, Any]:
        """Return OpenAI's response to a request of /v1/completions, as an object `text_completion`.

        With `echo`, `logprobs` and `max_tokens` 0 it has the log probabilities of the prompt's tokens.

        Raises:
            ModelError: as for chat.
        """
        with traced(self._trace, self._name, [body]) as record:
            response, completions = self._text.complete(body, watch)
            record([response], completions)
        return response

    def stream_text_completion(
        self, body: Mapping[str, Any], watch: Watch | None = None, wake: Wake | None = None
    ) -> Iterator[dict[str, Any]]:
        """Return the chunks of the response to a request of /v1/completions.

        Args:
            wake: as for stream.

        Raises:
            ModelError: as for stream.
        """
        chunks = self._stream_text(body, watch, wake)
        next(chunks)
        return chunks

    def prompt_tokens(self, body: Mapping[str, Any]) -> list[int]:
        """Return the tokens of a chat request's prompt.

        Raises:
            ModelError: as for chat.
        """
        return self._prompt(self._parse(body))

    @property
    def _name(self) -> str:
        return self.served.model

    def _stream(self, row: Mapping[str, Any], watch: Watch | None, wake: Wake | None) -> Iterator[dict[str, Any]]:
        """Yield an empty chunk when the request is queued, which `stream` takes, and then the chunks."""
        with traced(self._trace, self._name, [row]) as record:
            self.engine.check_process()
            request = self._parse(row)
            generations = self._submit(request, self._prompt(request), stream=True, watch=watch)
            chunks, completions = Chunks(self.served, request.include_usage), dict[int, Completion]()
            choices = [ChoiceStream(chunks, index, request, self.engine.token_bytes) for index in range(request.n)]
            try:
                yield {}
                yield from (chunks.role(index) for index in range(request.n))
                for numbered in interleaved(generations, wake):
                    if numbered is None:
                        yield {}
                        continue
                    index, event = numbered
                    if isinstance(event, Completion):
                        completions[index] = event
                        yield from choices[index].end(event)
                    else:
                        yield from choices[index].add(event)
            finally:
                _cancel(generations)
            answers = [completions[index] for index in range(request.n)]
            response = self._respond(request, answers)
            record([response], answers)
            if request.include_usage:
                yield chunks.usage(response["usage"])

    def _stream_text(self, body: Mapping[str, Any], watch: Watch | None, wake: Wake | None) -> Iterator[dict[str, Any]]:
        """As _stream, for stream_text_completion."""
        with traced(self._trace, self._name, [body]) as record:
            chunks, completions = self._text.stream(body, watch, wake)
            yield {}
            yield from chunks
            record([], completions)

    def _parse(self, row: Mapping[str, Any], stream: bool = True) -> ChatRequest:
        request = parse_chat(row, self._max_tokens, self.engine.tokenizer.supports_tools)
        if row.get("stream") is True and not stream:
            raise ModelError(
                "stream is true; predict returns whole answers: leave stream out, or call predict_stream",
                param="stream",
            )
        return request

    def _prompt(self, request: ChatRequest) -> list[int]:
        """Return the tokens of a conversation.

        Raises:
            ModelError: the chat template rejects it, or it is too long.
        """
        more: dict[str, Any] = {}
        if request.continue_final_message:
            more["continue_final_message"] = True
        if request.template_variables:
            more["variables"] = request.template_variables
        try:
            prompt = self.engine.tokenizer.encode_chat(request.messages, request.tools, **more)
        except MlflowException as error:
            raise error if isinstance(error, ModelError) else ModelError(error.message, param="messages") from None
        self.engine.check_length(prompt, request.sampling.max_tokens)
        return prompt

    def _submit(
        self,
        request: ChatRequest,
        prompt: list[int],
        stream: bool,
        wait: bool = False,
        watch: Watch | None = None,
    ) -> list[Generation]:
        """Queue each choice of a request. See Engine.submit for `stream` and `wait`."""
        generations: list[Generation] = []
        begins = not request.continue_final_message
        try:
            for choice in range(request.n):
                generations.append(self.engine.submit(prompt, request.sampling, choice, begins, wait, stream))
                if watch:
                    watch(generations[-1])
        except MlflowException:
            _cancel(generations)
            raise
        return generations

    def _respond(self, request: ChatRequest, completions: Sequence[Completion]) -> dict[str, Any]:
        choices = [self._choice(request, completion) for completion in completions]
        first, written = completions[0], sum(completion.completion_tokens for completion in completions)
        counts = [completion.thought_tokens for completion in completions if completion.thought_tokens is not None]
        thought = sum(counts) if counts else None
        usage = usage_of(first.prompt_tokens, written, first.reused_tokens, thought)
        return chat_response(self.served, choices, usage)

    def _choice(self, request: ChatRequest, completion: Completion) -> Choice:
        logprobs = None
        if request.sampling.logprobs is not None:
            logprobs = chat_logprobs(completion.logprobs, self.engine.token_bytes)
        parallel = request.parallel_tool_calls
        choice = Choice.of(
            completion.text, completion.finish_reason, request.tools, parallel, logprobs, completion.thought
        )
        return replace(choice, stopped_by=completion.stopped_by)


def _cancel(generations: Iterable[Generation]) -> None:
    for generation in generations:
        generation.cancel()
