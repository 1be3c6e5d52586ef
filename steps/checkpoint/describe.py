"""Describe the checkpoint or the adapter in a folder, and refuse it if it cannot be used."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from steps.checkpoint.adapter import ADAPTER_FILES
from steps.checkpoint.adapter_checks import check_adapter
from steps.checkpoint.canonical import canonical_form, check_json_files, read_settings
from steps.checkpoint.checks import check_config, check_files, check_usable, is_allowed, wrappers_of
from steps.checkpoint.headers import Weights, read_config, read_weights
from steps.checkpoint.manifest import AdapterManifest, Architecture, CanonicalForm, Manifest, Origin
from steps.checkpoint.template_check import check_chat_template
from steps.checkpoint.tokenizer_file import check_vocabulary
from steps.checkpoint.weight_checks import check_weights
from steps.common.errors import StepError
from steps.common.hashing import describe_files

_LICENCE_FIELD = re.compile(r"^license:\s*(\S+)", re.MULTILINE)


def check_settings(folder: Path) -> None:
    """Raise StepError if the files of a checkpoint beside its weights show that it cannot be used.

    The chat template is tried in a process of its own first, because reading the settings renders it.
    """
    check_usable(read_config(folder))
    check_json_files(folder)
    check_chat_template(folder)
    read_settings(folder)


def build_manifest(folder: Path, origin: Origin, progress: Callable[[int], object] = lambda count: None) -> Manifest:
    """Describe the checkpoint in a folder, after `check_settings`.

    Args:
        origin: where the folder's files come from.
        progress: called with the number of bytes of each block that was hashed.

    Raises:
        StepError: the weights are pickled, the architecture is not supported, a file is damaged, or config.json
            contradicts the weights.
    """
    names = _file_names(folder)
    check_files(names)
    check_usable(read_config(folder))
    canonical = canonical_form(folder)
    settings, config = canonical.settings, canonical.settings.config
    weights = read_weights(folder)
    check_weights(folder, config, weights)
    check_config(config, weights)
    if weights.embedding_rows:
        check_vocabulary(settings.tokenizer, weights.embedding_rows)
    return Manifest(
        origin=origin,
        licence=_licence(folder),
        architecture=_architecture(config, weights),
        wrappers=wrappers_of(config),
        canonical=CanonicalForm(
            changes=settings.changes,
            ignored_files=canonical.ignored,
            end_tokens=settings.end_tokens.ids,
            end_token_sources=settings.end_tokens.sources,
            has_chat_template=settings.has_chat_template,
            builds_tokenizer=settings.builds_tokenizer,
        ),
        files=describe_files(
            folder, [name for name in names if is_allowed(name) and name not in canonical.ignored], progress
        ),
    )


def build_adapter_manifest(folder: Path, origin: Origin, base: Path) -> AdapterManifest:
    """Describe the LoRA adapter in a folder.

    Args:
        origin: where the folder's files come from.
        base: the folder of the checkpoint that the adapter is for.

    Raises:
        StepError: the adapter is damaged, or cannot be merged into the base.
    """
    facts = check_adapter(folder, base)
    names = [name for name in _file_names(folder) if is_allowed(name, ADAPTER_FILES)]
    return AdapterManifest(origin=origin, licence=_licence(folder), files=describe_files(folder, names), **vars(facts))


def _file_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def _architecture(config: dict[str, Any], weights: Weights) -> Architecture:
    """Return the facts of config.json and the headers.

    Raises:
        StepError: a field of config.json has a value of another type.
    """
    heads = config.get("num_attention_heads")
    scaling = config.get("rope_scaling") or {}
    try:
        return Architecture(
            architecture=config["architectures"][0],
            parameters=weights.parameters,
            dtype=weights.dtype,
            context_length=config.get("max_position_embeddings"),
            layers=config.get("num_hidden_layers"),
            hidden_size=config.get("hidden_size"),
            vocabulary=config.get("vocab_size"),
            attention_heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            rope=scaling.get("rope_type") or scaling.get("type") or "default",
            partial_rotary_factor=config.get("partial_rotary_factor") or 1.0,
            tied_embeddings=bool(config.get("tie_word_embeddings", False)),
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise StepError(
            f"config.json has a wrong value for {first['loc'][0]} ({first['msg']}): fetch or save the checkpoint again"
        ) from None


def _licence(folder: Path) -> str:
    """Return the licence that the model card states, else the first line of a licence file, else "not stated"."""
    card = folder / "README.md"
    if card.is_file():
        _, _, front_matter = card.read_text(encoding="utf-8", errors="replace").partition("---\n")
        if match := _LICENCE_FIELD.search(front_matter.partition("\n---")[0]):
            return match[1]
    for path in sorted(folder.glob("LICENSE*")):
        if lines := path.read_text(encoding="utf-8", errors="replace").strip().splitlines():
            return lines[0].strip()
    return "not stated"
