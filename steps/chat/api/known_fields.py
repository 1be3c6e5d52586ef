"""The names of a request's fields: read, ignored, or refused."""

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from ..errors import ModelError

# Read by both the chat and the completions of a server.
_SAMPLING = frozenset(
    (
        "max_tokens",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "stop",
        "stop_token_ids",
        "seed",
        "frequency_penalty",
        "presence_penalty",
        "repetition_penalty",
        "logit_bias",
        "ignore_eos",
        "response_format",
        "n",
        "logprobs",
        "model",
        "stream",
        "stream_options",
    )
)
CHAT_FIELDS = _SAMPLING | {
    "messages",
    "max_completion_tokens",
    "top_logprobs",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "continue_final_message",
    "chat_template_kwargs",
    "custom_inputs",
}
COMPLETION_FIELDS = _SAMPLING | {"prompt", "echo", "best_of", "suffix"}
# No server of one local model does anything with these fields, and they change no answer.
IGNORED_FIELDS = frozenset(
    (
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "verbosity",
        "reasoning_effort",
    )
)
# A field of the OpenAI API that would change the answer -> what to do. Values that change nothing are accepted.
_REFUSED = {
    "functions": "this field has left the API: use tools",
    "function_call": "this field has left the API: use tool_choice",
    "audio": "this model writes text only: leave it out",
    "modalities": "this model reads and writes text only: leave it out",
    "prediction": "this model takes no predicted output: leave it out",
    "web_search_options": "this model searches nothing: leave it out",
    "moderation": "this model moderates nothing: leave it out",
}
_HARMLESS: dict[str, tuple[Any, ...]] = {"functions": ([],), "function_call": ("none",), "modalities": (["text"],)}
_MAX_NAME = 40  # characters of an unknown name that a refusal shows


def check_names(fields: Mapping[str, Any], known: Collection[str]) -> tuple[str, ...]:
    """Return the names of the fields that are ignored.

    Raises:
        ModelError: a field is refused or unknown. The message has its name, and the nearest known name.
    """
    for name, value in fields.items():
        if name in _REFUSED and value not in _HARMLESS.get(name, ()):
            raise ModelError(f"{name}: {_REFUSED[name]}", param=name)
        if name not in known and name not in IGNORED_FIELDS and name not in _REFUSED:
            raise unknown(name, known)
    return tuple(sorted(set(fields) & IGNORED_FIELDS))


def unknown(name: str, known: Collection[str], within: str = "") -> ModelError:
    """Return the error of an unknown field.

    Args:
        within: the field that it is in, for example "stream_options.".
    """
    shown = name if len(name) <= _MAX_NAME else name[:_MAX_NAME] + "..."
    (nearest,) = difflib.get_close_matches(name[:_MAX_NAME], sorted(known), n=1) or (None,)
    advice = f"did you mean {within}{nearest}?" if nearest else "leave it out"
    return ModelError(f"{within}{shown} is not a field that this model knows; {advice}", param=f"{within}{shown}")
