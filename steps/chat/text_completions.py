"""The requests of /v1/completions: prompts as texts or tokens, and the log probabilities of prompts and answers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow.exceptions import MlflowException

from .api.completion_request import CompletionRequest, parse_completion
from .api.logprobs import completion_logprobs, text_of
from .api.responses import Served, usage_of
from .batching.engine import Engine
from .batching.generation import Completion, Generation, Piece, interleaved
from .batching.logprobs import TokenLogprob
from .errors import ModelError

_Watch = Callable[[Generation], None] | None  # see service.Service
_Wake = Callable[[], None] | None  # see service.Service.stream


@dataclass(frozen=True)
class _Prompt:
    """A prompt of a request, as text and as tokens."""

    text: str
    tokens: list[int]


class TextCompletions:
    """Answers requests of /v1/completions with OpenAI's objects `text_completion`."""

    def __init__(self, engine: Engine, served: Served) -> None:
        self._engine, self._served = engine, served

    def complete(self, body: Mapping[str, Any], watch: _Watch = None) -> tuple[dict[str, Any], list[Completion]]:
        """Return the response to a request, and its completions.

        Raises:
            ModelError: a field is invalid, a prompt is too long, the queue is full, or the timeout is over.
        """
        request, prompts = self._read(body)
        generations = self._submit(request, prompts, stream=False, watch=watch)
        try:
            completions = [generation.wait() for generation in generations]
        finally:
            _cancel(generations)
        choices = []
        for index, completion in enumerate(completions):
            prompt = prompts[index // request.n]
            text = (prompt.text if request.echo else "") + completion.text
            tokens = self._prompt_tokens(request, prompt, completion.prompt_logprobs)
            tokens += [(token.token, token) for token in [*completion.logprobs, *_end_of(completion)]]
            choices.append(self._choice(request, index, text, tokens, completion.finish_reason))
        response = self._served.frame("cmpl", "text_completion") | {
            "choices": choices,
            "usage": _usage(completions, request.n),
        }
        return response, completions

    def stream(
        self, body: Mapping[str, Any], watch: _Watch = None, wake: _Wake = None
    ) -> tuple[Iterator[dict[str, Any]], list[Completion]]:
        """Return the chunks of the response, and a list that has the completions at the end.

        Raises:
            ModelError: as for complete; at the call, except for what happens while the answer is made.
        """
        request, prompts = self._read(body)
        generations = self._submit(request, prompts, stream=True, watch=watch)
        completions: list[Completion] = []
        events = interleaved(generations, wake)
        return self._chunks(request, prompts, generations, events, completions), completions

    def _chunks(
        self,
        request: CompletionRequest,
        prompts: list[_Prompt],
        generations: list[Generation],
        events: Iterator[tuple[int, Piece | Completion] | None],
        completions: list[Completion],
    ) -> Iterator[dict[str, Any]]:
        frame, done = self._served.frame("cmpl", "text_completion"), dict[int, Completion]()
        no_usage: dict[str, Any] = {"usage": None} if request.include_usage else {}
        echoed: set[int] = set() if request.echo else set(range(len(generations)))
        offsets = [0] * len(generations)  # characters sent of each choice

        def chunk(
            index: int, text: str, tokens: Sequence[tuple[int, TokenLogprob | None]], reason: str | None
        ) -> dict[str, Any]:
            choice = self._choice(request, index, text, tokens, reason, offsets[index])
            offsets[index] += len(text)
            return frame | {"choices": [choice]} | no_usage

        try:
            for numbered in events:
                if numbered is None:
                    yield {}
                    continue
                index, event = numbered
                if index not in echoed:
                    echoed.add(index)
                    prompt = prompts[index // request.n]
                    scores = self._prompt_tokens(request, prompt, generations[index].prompt_logprobs)
                    yield chunk(index, prompt.text, scores, None)
                if isinstance(event, Piece):
                    yield chunk(index, event.text, [(token.token, token) for token in event.logprobs], None)
                else:
                    done[index] = event
                    yield chunk(index, "", [(token.token, token) for token in _end_of(event)], event.finish_reason)
        finally:
            _cancel(generations)
        completions += [done[index] for index in range(len(generations))]
        if request.include_usage:
            yield frame | {"choices": [], "usage": _usage(completions, request.n)}

    def _read(self, body: Mapping[str, Any]) -> tuple[CompletionRequest, list[_Prompt]]:
        self._engine.check_process()
        request = parse_completion(body)
        prompts = []
        for index, value in enumerate(request.prompts):
            try:
                prompts.append(self._prompt(value, request))
            except ModelError as error:
                if len(request.prompts) == 1:
                    raise
                raise ModelError(f"prompt[{index}]: {error.message}", param="prompt", code=error.code) from None
        return request, prompts

    def _prompt(self, value: str | list[int], request: CompletionRequest) -> _Prompt:
        if isinstance(value, str):
            prompt = _Prompt(value, self._engine.tokenizer.encode(value))
        else:
            self._engine.check_tokens("prompt", value)
            prompt = _Prompt(text_of(b"".join(map(self._engine.token_bytes, value))) if request.echo else "", value)
        self._engine.check_length(prompt.tokens, request.sampling.max_tokens, "prompt")
        return prompt

    def _submit(
        self, request: CompletionRequest, prompts: list[_Prompt], stream: bool, watch: _Watch
    ) -> list[Generation]:
        """Queue each choice of each prompt. A request with many choices waits for room in the queue."""
        wait = len(prompts) * request.n > 1
        generations: list[Generation] = []
        try:
            for prompt in prompts:
                for choice in range(request.n):
                    generation = self._engine.submit(prompt.tokens, request.sampling, choice, False, wait, stream)
                    generations.append(generation)
                    if watch:
                        watch(generation)
        except MlflowException:
            _cancel(generations)
            raise
        return generations

    def _prompt_tokens(
        self, request: CompletionRequest, prompt: _Prompt, logprobs: Sequence[TokenLogprob]
    ) -> list[tuple[int, TokenLogprob | None]]:
        """Return the tokens of an echoed prompt and their log probabilities; none if the request wants none."""
        if request.sampling.prompt_logprobs is None:
            return []
        return [(prompt.tokens[0], None), *((token.token, token) for token in logprobs)]

    def _choice(
        self,
        request: CompletionRequest,
        index: int,
        text: str,
        tokens: Sequence[tuple[int, TokenLogprob | None]],
        finish_reason: str | None,
        offset: int = 0,
    ) -> dict[str, Any]:
        logprobs = None
        if request.sampling.logprobs is not None:
            logprobs = completion_logprobs(tokens, self._engine.token_bytes, offset)
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}


def _end_of(completion: Completion) -> list[TokenLogprob]:
    """Return the log probability of the end token, as a list: clients that drop the last token count on it."""
    return [completion.end_logprob] if completion.end_logprob else []


def _usage(completions: Sequence[Completion], n: int) -> dict[str, Any]:
    """Return the usage of all prompts. The choices of one prompt share its tokens."""
    firsts = completions[::n]
    prompt = sum(completion.prompt_tokens for completion in firsts)
    cached = sum(completion.reused_tokens for completion in firsts)
    return usage_of(prompt, sum(completion.completion_tokens for completion in completions), cached)


def _cancel(generations: Sequence[Generation]) -> None:
    for generation in generations:
        generation.cancel()
