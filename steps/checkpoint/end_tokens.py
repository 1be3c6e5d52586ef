"""Find the tokens that end an answer (EOS), and the files that name them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from steps.common.errors import StepError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

GENERATION = "generation_config.json"


@dataclass(frozen=True)
class EndTokens:
    """The tokens that end an answer (EOS), and the files that name them."""

    ids: tuple[int, ...]
    sources: tuple[str, ...]


def find_end_tokens(
    generation: dict[str, Any],
    config: dict[str, Any],
    tokenizer: "Tokenizer",
    tokenizer_end: str | None,
    template_end: str | None,
) -> EndTokens:
    """Return the union of the end tokens that the files of a checkpoint name.

    vLLM ends an answer at those of generation_config.json, config.json and the tokenizer too (vllm/config/model.py,
    try_get_generation_config; the tokenizer's EOS). Where none of them names the token that ends a turn, the chat
    template still writes it after each answer, and so does a model that was trained on it.

    Args:
        generation: the content of generation_config.json; empty if there is no file.
        config: the content of config.json.
        tokenizer_end: the text of the end token that the tokenizer's config files state.
        template_end: the text of the token with which the chat template ends a turn of the assistant.

    Raises:
        StepError: no file names an end token, or a value is not a token ID.
    """
    of_tokenizer = tokenizer.token_to_id(tokenizer_end) if tokenizer_end else None
    of_template = tokenizer.token_to_id(template_end) if template_end else None
    named = {
        GENERATION: _ids(generation.get("eos_token_id"), GENERATION),
        "config.json": _ids(config.get("eos_token_id"), "config.json"),
        "the tokenizer": () if of_tokenizer is None else (of_tokenizer,),
        "the chat template": () if of_template is None else (of_template,),
    }
    ids = tuple(dict.fromkeys(token for tokens in named.values() for token in tokens))
    if not ids:
        raise StepError(
            "no file of the checkpoint names an end token (EOS), so answers would not end: add eos_token_id to "
            f"{GENERATION}"
        )
    return EndTokens(ids, tuple(source for source, tokens in named.items() if tokens))


def _ids(value: Any, file: str) -> tuple[int, ...]:
    values = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(token, int) and not isinstance(token, bool) and token >= 0 for token in values):
        raise StepError(f"{file}: eos_token_id is {value!r:.80}; expected a token ID or a list of token IDs")
    return tuple(values)
