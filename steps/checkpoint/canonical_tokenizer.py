"""Translate tokenizer_config.json to what transformers 4.57 reads, and find what the tokenizer knows of its tokens.

transformers 5 writes the tokenizer class TokenizersBackend, which is tokenizer.json as it stands: 4.57's
PreTrainedTokenizerFast. It writes extra_special_tokens as a list, where 4.57 reads a dictionary of names.
"""

from pathlib import Path
from typing import Any

from steps.checkpoint.canonical_config import Translated
from steps.checkpoint.hidden_code import refuse_code
from steps.checkpoint.json_files import find_json_object
from steps.common.errors import StepError

TOKENIZER = "tokenizer.json"
_PLAIN_CLASS = "PreTrainedTokenizerFast"
_RENAMED_CLASSES = {"TokenizersBackend": _PLAIN_CLASS, "PythonBackend": _PLAIN_CLASS}
# The fields that the tokenizer classes of transformers 4.57 read. Any other field is left out.
_FIELDS = {
    "add_bos_token",
    "add_eos_token",
    "add_prefix_space",
    "added_tokens_decoder",
    "additional_special_tokens",
    "bos_token",
    "chat_template",
    "clean_up_tokenization_spaces",
    "cls_token",
    "eos_token",
    "errors",
    "extra_special_tokens",
    "legacy",
    "mask_token",
    "model_input_names",
    "model_max_length",
    "pad_token",
    "padding_side",
    "sep_token",
    "split_special_tokens",
    "tokenizer_class",
    "trim_offsets",
    "truncation_side",
    "unk_token",
}
_TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json")


def translate_tokenizer_config(config: dict[str, Any]) -> Translated:
    """Return tokenizer_config.json with the fields that transformers 4.57 reads.

    Raises:
        StepError: a field can name code.
    """
    refuse_code(config, "tokenizer_config.json")
    content = {key: value for key, value in config.items() if key in _FIELDS}
    changes = []
    name = content.get("tokenizer_class")
    if name in _RENAMED_CLASSES:
        content["tokenizer_class"] = _RENAMED_CLASSES[name]
        changes.append(f"tokenizer_config.json: tokenizer_class {name} became {_RENAMED_CLASSES[name]}")
    extra = content.get("extra_special_tokens")
    if isinstance(extra, list):
        del content["extra_special_tokens"]
        special = content.get("additional_special_tokens") or []
        content["additional_special_tokens"] = [*special, *(token for token in extra if token not in special)]
        changes.append("tokenizer_config.json: the list extra_special_tokens became additional_special_tokens")
    dropped = sorted(set(config) - _FIELDS)
    if dropped:
        changes.append(
            f"tokenizer_config.json: left out fields that transformers 4.57 does not read: {', '.join(dropped)}"
        )
    return Translated(content, tuple(changes))


def has_chat_template(folder: Path, tokenizer_config: dict[str, Any]) -> bool:
    """Return whether a checkpoint has a chat template, in a file of its own or in tokenizer_config.json."""
    if tokenizer_config.get("chat_template"):
        return True
    return any((folder / name).is_file() for name in _TEMPLATE_FILES)


def largest_token_id(tokenizer: dict[str, Any]) -> int:
    """Return the largest ID that tokenizer.json gives a token, added tokens included.

    Raises:
        StepError: the file does not have the fields of a tokenizer.
    """
    try:
        vocabulary = tokenizer["model"].get("vocab") or {}
        ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else list(range(len(vocabulary)))
        ids += [token["id"] for token in tokenizer.get("added_tokens") or []]
        return max(int(token) for token in ids)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise StepError(f"{TOKENIZER} is damaged ({error!r}): fetch or save the checkpoint again") from None


def token_id(tokenizer: dict[str, Any], token: str) -> int | None:
    """Return the ID of a token's text; None if tokenizer.json does not have it."""
    for added in tokenizer.get("added_tokens") or []:
        if added.get("content") == token:
            return int(added["id"])
    vocabulary = tokenizer.get("model", {}).get("vocab") or {}
    return vocabulary.get(token) if isinstance(vocabulary, dict) else None


def end_token_text(folder: Path, tokenizer_config: dict[str, Any]) -> str | None:
    """Return the text of the tokenizer's end token (EOS), as one of its two config files states it; else None."""
    for content in (tokenizer_config, find_json_object(folder / "special_tokens_map.json")):
        token = content.get("eos_token")
        if isinstance(token, dict):
            token = token.get("content")
        if isinstance(token, str):
            return token
    return None
