"""Translate the tokenizer's config files to what transformers 4.57 reads.

transformers 5 writes the tokenizer class TokenizersBackend, which is tokenizer.json as it stands: 4.57's
PreTrainedTokenizerFast. It writes extra_special_tokens as a list, where 4.57 reads a dictionary of names.
"""

from typing import Any

from steps.checkpoint.canonical_config import Translated, left_out
from steps.checkpoint.hidden_code import check_tokenizer_class, refuse_code
from steps.common.errors import StepError

TOKENIZER_CONFIG, SPECIAL_TOKENS = "tokenizer_config.json", "special_tokens_map.json"
_PLAIN_CLASS = "PreTrainedTokenizerFast"
_RENAMED_CLASSES = {"TokenizersBackend": _PLAIN_CLASS, "PythonBackend": _PLAIN_CLASS}
_SPECIAL = {
    "additional_special_tokens",
    "bos_token",
    "cls_token",
    "eos_token",
    "mask_token",
    "pad_token",
    "sep_token",
    "unk_token",
}
# The fields that the tokenizer classes of transformers 4.57 read. Any other field is left out.
_FIELDS = _SPECIAL | {
    "add_bos_token",
    "add_eos_token",
    "add_prefix_space",
    "added_tokens_decoder",
    "chat_template",
    "clean_up_tokenization_spaces",
    "errors",
    "extra_special_tokens",
    "legacy",
    "model_input_names",
    "model_max_length",
    "padding_side",
    "split_special_tokens",
    "tokenizer_class",
    "trim_offsets",
    "truncation_side",
}
_AGAIN = "save the tokenizer again with save_pretrained"


def translate_tokenizer_config(config: dict[str, Any]) -> Translated:
    """Return tokenizer_config.json with the fields that transformers 4.57 reads.

    Raises:
        StepError: a field can name code, or has another type.
    """
    refuse_code({key: value for key, value in config.items() if key != "added_tokens_decoder"}, TOKENIZER_CONFIG)
    content = {key: value for key, value in config.items() if key in _FIELDS}
    changes = []
    name = content.get("tokenizer_class")
    if isinstance(name, str) and name in _RENAMED_CLASSES:
        content["tokenizer_class"] = _RENAMED_CLASSES[name]
        changes.append(f"{TOKENIZER_CONFIG}: tokenizer_class {name} became {_RENAMED_CLASSES[name]}")
    check_tokenizer_class(content.get("tokenizer_class"), TOKENIZER_CONFIG)
    _check_special_tokens(content, TOKENIZER_CONFIG)
    extra = content.get("extra_special_tokens")
    if isinstance(extra, list):
        del content["extra_special_tokens"]
        special = content.get("additional_special_tokens") or []
        content["additional_special_tokens"] = [*special, *(token for token in extra if token not in special)]
        changes.append(f"{TOKENIZER_CONFIG}: the list extra_special_tokens became additional_special_tokens")
    return Translated(content, (*changes, *left_out(TOKENIZER_CONFIG, config, _FIELDS)))


def translate_special_tokens(content: dict[str, Any]) -> Translated:
    """Return special_tokens_map.json with the special tokens alone: transformers takes any field for an argument.

    Raises:
        StepError: a field can name code, or a special token is neither a text nor an object with one.
    """
    refuse_code(content, SPECIAL_TOKENS)
    special = {key: value for key, value in content.items() if key in _SPECIAL}
    _check_special_tokens(special, SPECIAL_TOKENS)
    return Translated(special, left_out(SPECIAL_TOKENS, content, _SPECIAL))


def _check_special_tokens(content: dict[str, Any], file: str) -> None:
    for field in _SPECIAL & set(content):
        value = content[field]
        tokens = value if field == "additional_special_tokens" and isinstance(value, list) else [value]
        if not all(token is None or token_text(token) is not None for token in tokens):
            raise StepError(f"{file}: {field} is {value!r:.80}; expected a token's text: {_AGAIN}")
    if not isinstance(content.get("extra_special_tokens") or [], list | dict):
        raise StepError(
            f"{file}: extra_special_tokens is {content['extra_special_tokens']!r:.80}; expected tokens: {_AGAIN}"
        )
    template = content.get("chat_template") or ""
    named = template if isinstance(template, list) else []
    if not isinstance(template, str) and not (
        named and all(isinstance(one, dict) and {"name", "template"} <= set(one) for one in named)
    ):
        raise StepError(
            f"{file}: chat_template is {template!r:.80}; expected a template, or a list of named ones: {_AGAIN}"
        )
    decoder = content.get("added_tokens_decoder") or {}
    if not isinstance(decoder, dict) or not all(
        key.isdigit() and isinstance(value, dict) and isinstance(value.get("content"), str)
        for key, value in decoder.items()
    ):
        raise StepError(
            f"{file}: added_tokens_decoder is damaged; expected an object with content for each ID: {_AGAIN}"
        )


def token_text(token: Any) -> str | None:
    """Return the text of a special token, which is a text or an object with the field `content`."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def end_token_text(tokenizer_config: dict[str, Any], special_tokens: dict[str, Any]) -> str | None:
    """Return the text of the tokenizer's end token (EOS); None if no file states it.

    transformers reads special_tokens_map.json only if tokenizer_config.json has no added_tokens_decoder. Then the map
    wins.
    """
    if "added_tokens_decoder" in tokenizer_config:
        return token_text(tokenizer_config.get("eos_token"))
    return token_text(special_tokens.get("eos_token")) or token_text(tokenizer_config.get("eos_token"))
