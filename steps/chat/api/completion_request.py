"""Parse the requests of /v1/completions, https://platform.openai.com/docs/api-reference/completions."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .fields import boolean, invalid, present, whole_number
from .known_fields import COMPLETION_FIELDS, check_names
from .requests import MAX_CHOICES, read_stream_options
from .response_format import parse_response_format
from .sampling import MAX_TOP_LOGPROBS, Sampling, read_sampling

_DEFAULT_MAX_TOKENS = 16  # OpenAI's
_MAX_TOTAL = 1024  # choices of all prompts of a request


@dataclass(frozen=True)
class CompletionRequest:
    """A valid request for `n` continuations of each prompt. A prompt is a text or a list of tokens."""

    prompts: list[str | list[int]]
    sampling: Sampling
    n: int = 1
    echo: bool = False  # the text of a choice begins with its prompt
    include_usage: bool = False  # the last chunk of a stream has the usage
    ignored: tuple[str, ...] = ()  # fields that change nothing


def parse_completion(body: Mapping[str, Any]) -> CompletionRequest:
    """Return the request of a body.

    Raises:
        ModelError: INVALID_PARAMETER_VALUE (HTTP 400). The message names the field.
    """
    fields = present(body)
    prompts = _prompts(fields.get("prompt"))
    ignored = check_names(fields, COMPLETION_FIELDS)
    if fields.get("suffix"):
        raise invalid("suffix", fields["suffix"], "this model only continues a text: leave it out")
    n = whole_number(fields, "n", 1, minimum=1, maximum=MAX_CHOICES)
    if whole_number(fields, "best_of", n, minimum=1) != n:
        raise invalid("best_of", fields["best_of"], "expected the same number as n: leave it out")
    if n * len(prompts) > _MAX_TOTAL:
        raise invalid("prompt", fields["prompt"], f"expected at most {_MAX_TOTAL} choices in one request")
    echo = boolean(fields, "echo")
    logprobs = None
    if "logprobs" in fields and fields["logprobs"] is not False:  # 0 asks for the tokens' own log probabilities
        logprobs = whole_number(fields, "logprobs", 0, minimum=0, maximum=MAX_TOP_LOGPROBS)
    return CompletionRequest(
        prompts=prompts,
        sampling=replace(_sampling(fields, echo), logprobs=logprobs, prompt_logprobs=logprobs if echo else None),
        n=n,
        echo=echo,
        include_usage=read_stream_options(fields),
        ignored=ignored,
    )


def _sampling(fields: Mapping[str, Any], echo: bool) -> Sampling:
    """Return the sampling. With `echo`, max_tokens may be 0: then the answer is the prompt alone."""
    response_format = parse_response_format(fields.get("response_format"))
    if echo and whole_number(fields, "max_tokens", 1, minimum=0) == 0:
        return replace(read_sampling({**fields, "max_tokens": 1}, 1, response_format), max_tokens=0)
    return read_sampling(fields, _DEFAULT_MAX_TOKENS, response_format)


def _prompts(value: Any) -> list[str | list[int]]:
    if _is_prompt(value):
        return [value]
    if isinstance(value, list) and value and all(_is_prompt(prompt) for prompt in value):
        return value
    raise invalid("prompt", value, "expected a text, a list of texts, or the tokens of a text, and nothing empty")


def _is_prompt(value: Any) -> bool:
    if isinstance(value, list) and value:
        return all(isinstance(token, int) and not isinstance(token, bool) and token >= 0 for token in value)
    return isinstance(value, str) and value != ""
