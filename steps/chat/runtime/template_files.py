"""Read what a chat template needs from the files of a checkpoint: its source, and the tokens that it may name."""

import json
from pathlib import Path
from typing import Any

_SPECIAL_TOKENS = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


def template_sources(folder: Path) -> dict[str, str]:
    """Return the templates of a folder by name. The file chat_template.jinja wins, as in transformers."""
    more = {file.stem: _read_text(file) for file in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
    if (folder / "chat_template.jinja").is_file():
        return {"default": _read_text(folder / "chat_template.jinja"), **more}
    for name in ("chat_template.json", "tokenizer_config.json"):
        template = _read_json(folder / name).get("chat_template")
        if isinstance(template, str):
            return {"default": template, **more}
        if isinstance(template, list):
            return {entry["name"]: entry["template"] for entry in template} | more
        if isinstance(template, dict):
            return template | more
    return more


def special_tokens(folder: Path) -> dict[str, Any]:
    """Return the special tokens by the names that transformers gives them in a template."""
    content = _read_json(folder / "tokenizer_config.json")
    if "added_tokens_decoder" not in content:  # files of before 2023; later files state everything
        content |= _read_json(folder / "special_tokens_map.json")
    tokens: dict[str, Any] = {}
    extra = content.get("extra_special_tokens")
    names = [*(f"{name}_token" for name in _SPECIAL_TOKENS), *(extra if isinstance(extra, dict) else {})]
    for name in names:
        token = content.get(name) or (extra.get(name) if isinstance(extra, dict) else None)
        if token:
            tokens[name] = _token_text(token)
    additional = content.get("additional_special_tokens") or (extra if isinstance(extra, list) else None)
    if additional:
        tokens["additional_special_tokens"] = [_token_text(token) for token in additional]
    return tokens


def _token_text(token: Any) -> str:
    return token["content"] if isinstance(token, dict) else str(token)


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8-sig")


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(_read_text(path)) if path.is_file() else {}


def added_tokens(folder: Path) -> list[str]:
    """Return the texts of the tokens that were added to a folder's tokenizer."""
    if (folder / "tokenizer.json").is_file():
        return [token["content"] for token in _read_json(folder / "tokenizer.json").get("added_tokens", [])]
    decoder = _read_json(folder / "tokenizer_config.json").get("added_tokens_decoder", {})
    return [token["content"] for token in decoder.values()]
