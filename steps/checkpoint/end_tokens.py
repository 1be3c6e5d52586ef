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
    generation: dict[str, Any], config: dict[str, Any], tokenizer: "Tokenizer", tokenizer_end: str | None
) -> EndTokens:
    """Return the union of the end tokens that generation_config.json, config.json and the tokenizer name.

    vLLM ends an answer at any of them too (vllm/config/model.py, try_get_generation_config; the tokenizer's EOS).

    Args:
        generation: the content of generation_config.json; empty if there is no file.
        config: the content of config.json.
        tokenizer_end: the text of the end token that the tokenizer's config files state.

    Raises:
        StepError: no file names an end token, or a value is not a token ID.
    """
    of_tokenizer = tokenizer.token_to_id(tokenizer_end) if tokenizer_end else None
    named = {
        GENERATION: _ids(generation.get("eos_token_id"), GENERATION),
        "config.json": _ids(config.get("eos_token_id"), "config.json"),
        "the tokenizer": () if of_tokenizer is None else (of_tokenizer,),
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
