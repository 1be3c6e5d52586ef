"""The fields that say how the tokens of an answer are chosen, and when the answer ends."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .fields import as_number, boolean, invalid, number, whole_number
from .response_format import ResponseFormat

MAX_STOPS, MAX_STOP_LENGTH = 16, 1000
MAX_TOP_LOGPROBS = 20
_MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class Sampling:
    """How the tokens of an answer are chosen: the most likely one, unless the temperature is above 0."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    response_format: ResponseFormat | None = None
    min_p: float = 0.0  # tokens of less than min_p times the largest probability are not drawn
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()  # token, what is added to its logit
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None  # alternatives beside each token's log probability; None: no log probabilities
    prompt_logprobs: int | None = None  # the same for the tokens of the prompt


def read_sampling(
    fields: Mapping[str, Any], default_max_tokens: int, response_format: ResponseFormat | None
) -> Sampling:
    """Return the sampling of a request, without its log probabilities.

    Raises:
        ModelError: INVALID_PARAMETER_VALUE. The message names the field.
    """
    ignore_eos = boolean(fields, "ignore_eos")
    if ignore_eos and response_format:
        raise invalid("ignore_eos", True, "leave it out: the response format, or the required call, ends the answer")
    return Sampling(
        max_tokens=_max_tokens(fields, default_max_tokens),
        temperature=number(fields, "temperature", 0.0, minimum=0, maximum=2),
        top_p=number(fields, "top_p", 1.0, minimum=0, maximum=1),
        top_k=whole_number(fields, "top_k", 0, minimum=0),
        stop=_stop(fields.get("stop")),
        seed=whole_number(fields, "seed", 0, minimum=0, maximum=_MAX_SEED) if "seed" in fields else None,
        frequency_penalty=number(fields, "frequency_penalty", 0.0, minimum=-2, maximum=2),
        presence_penalty=number(fields, "presence_penalty", 0.0, minimum=-2, maximum=2),
        response_format=response_format,
        min_p=number(fields, "min_p", 0.0, minimum=0, maximum=1),
        repetition_penalty=number(fields, "repetition_penalty", 1.0, minimum=0.01, maximum=10),
        logit_bias=_logit_bias(fields.get("logit_bias")),
        stop_token_ids=_token_ids(fields.get("stop_token_ids")),
        ignore_eos=ignore_eos,
    )


def read_chat_logprobs(fields: Mapping[str, Any]) -> int | None:
    """Return how many alternatives `logprobs` and `top_logprobs` ask for, or None for no log probabilities.

    Raises:
        ModelError: INVALID_PARAMETER_VALUE. The message names the field.
    """
    wanted = boolean(fields, "logprobs")
    alternatives = whole_number(fields, "top_logprobs", 0, minimum=0, maximum=MAX_TOP_LOGPROBS)
    if alternatives and not wanted:
        raise invalid("top_logprobs", alternatives, "expected logprobs true beside it")
    return alternatives if wanted else None


def _max_tokens(fields: Mapping[str, Any], default: int) -> int:
    """Return the smaller one of max_tokens and max_completion_tokens, which is its newer name."""
    names = [name for name in ("max_completion_tokens", "max_tokens") if name in fields]
    return min((whole_number(fields, name, default, minimum=1) for name in names), default=default)


def _stop(value: Any) -> tuple[str, ...]:
    strings = [value] if isinstance(value, str) else value or []
    expected = "expected a string or a list of strings, and no empty string"
    if not isinstance(strings, list) or not all(isinstance(string, str) and string for string in strings):
        raise invalid("stop", value, expected)
    if len(strings) > MAX_STOPS or any(len(string) > MAX_STOP_LENGTH for string in strings):
        raise invalid("stop", value, f"expected at most {MAX_STOPS} strings of at most {MAX_STOP_LENGTH} characters")
    return tuple(strings)


def _logit_bias(value: Any) -> tuple[tuple[int, float], ...]:
    expected = "expected an object of token numbers, each with a number of at least -100 and at most 100"
    if value is None:
        return ()
    if not isinstance(value, Mapping):
        raise invalid("logit_bias", value, expected)
    # Schemas of Spark and Arrow give every row the keys of all rows, with null where a row has none.
    biases = {token: as_number(bias) for token, bias in value.items() if bias is not None}
    if not all(
        token.isascii() and token.isdigit() and len(token) < 10 and bias is not None and -100 <= bias <= 100
        for token, bias in biases.items()
    ):
        raise invalid("logit_bias", value, expected)
    return tuple((int(token), bias) for token, bias in biases.items() if bias is not None)


def _token_ids(value: Any) -> tuple[int, ...]:
    tokens = value or []
    numbers = [as_number(token) for token in tokens] if isinstance(tokens, list) else [None]
    if not all(token is not None and token >= 0 and token.is_integer() for token in numbers):
        raise invalid("stop_token_ids", value, "expected a list of token numbers")
    return tuple(int(token) for token in tokens)
