"""Translate config.json and generation_config.json to what transformers 4.57 reads, whichever tool saved them."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from steps.checkpoint.canonical_rope import ROPE_FIELDS, translate_rope
from steps.checkpoint.checks import architecture_of
from steps.checkpoint.config_checks import check_token_id
from steps.checkpoint.hidden_code import check_tokenizer_class, refuse_code
from steps.checkpoint.transformers_source import config_fields
from steps.common.errors import StepError

# Fields that are no arguments of every class, and that transformers 4.57 reads from each configuration that has them.
_READ_FROM_ALL = (
    "architectures",
    "model_type",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "head_dim",
    *ROPE_FIELDS,
)
_PHI3_PADDING = 32000  # the pad_token_id of a Phi3Config that names none
_TOKENS = ("bos_token_id", "pad_token_id")
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
_READ = ("eos_token_id", "do_sample", "transformers_version", "_from_model_config", "use_cache", *_TOKENS)


@dataclass(frozen=True)
class Translated:
    """A translated file: its content, and each change in words."""

    content: dict[str, Any]
    changes: tuple[str, ...]


def left_out(file: str, content: dict[str, Any], kept: Collection[str]) -> tuple[str, ...]:
    """Return the change that says which fields of a file are left out; nothing if they say nothing.

    Args:
        content: the file's content.
        kept: the fields that are not left out.
    """
    fields = sorted(key for key, value in content.items() if key not in kept and value)
    return (f"{file}: left out fields that transformers 4.57 does not read: {', '.join(fields)}",) if fields else ()


def translate_config(config: dict[str, Any]) -> Translated:
    """Return config.json with the fields that the configuration class of transformers 4.57 defines, and no other.

    Args:
        config: the content of config.json, after check_usable.

    Raises:
        StepError: the rotary embedding or the tokenizer's class can't be said in these fields.
    """
    check_tokenizer_class(config.get("tokenizer_class"), "config.json")
    content, changes = translate_rope(config)
    content["architectures"] = [architecture_of(config)]
    if content.get("head_dim") is None:
        content.pop("head_dim", None)  # Phi-3's attention would take the null
    if config["model_type"] == "phi3" and content["vocab_size"] <= _PHI3_PADDING:
        content.setdefault("pad_token_id", None)
    fields = {*config_fields(config["model_type"]), *_READ_FROM_ALL}
    allowed = {key: value for key, value in content.items() if key in fields}
    return Translated(allowed, (*changes, *left_out("config.json", content, fields)))


def translate_generation(generation: dict[str, Any], config: dict[str, Any], end_tokens: tuple[int, ...]) -> Translated:
    """Return generation_config.json with the token IDs, and with sampling parameters only if the model samples.

    Args:
        generation: the file's content; empty if there is no file.
        config: config.json.
        end_tokens: every token that ends an answer.

    Raises:
        StepError: a field can name code, or a value has another type.
    """
    refuse_code(generation, "generation_config.json")
    content: dict[str, Any] = {}
    for name in _TOKENS:
        check_token_id(generation, name, "generation_config.json")
        value = generation.get(name, config.get(name))
        if value is not None:
            content[name] = value
    content["eos_token_id"] = list(end_tokens)
    samples = generation.get("do_sample") is True
    if samples:
        content["do_sample"] = True
    for name in _SAMPLING if samples else ():
        value = generation.get(name)
        if value is None:
            continue
        if not isinstance(value, int | float) or isinstance(value, bool) or value < 0:
            raise StepError(f"generation_config.json: {name} is {value!r:.80}; expected a number of at least 0")
        content[name] = value
    unread = sorted(name for name, value in generation.items() if value and name not in (*_READ, *content))
    changes = (f"generation_config.json: left out fields that no wrapper reads: {', '.join(unread)}",) if unread else ()
    return Translated(content, changes)
