"""Refuse configurations that can make transformers download or run code.

transformers 4.56 to 5.2 download and run the kernel repository that `_attn_implementation_internal` in config.json
names, whatever trust_remote_code says (CVE-2026-4372). Two walls stand against this kind:

    1. this module      refuses each field, at any depth, whose name and value can stand for code or for a repository
    2. the canonical    keeps only the fields that transformers' own class defines (config.json), or a list of fields
       form             (the other files), so a field that this module does not know never reaches transformers

What transformers 4.57.6 and 5.24.0 resolve to code, by file:

| file | fields |
| --- | --- |
| config.json, and its sub-configurations | auto_map, custom_pipelines, (_)attn_implementation(_internal), |
| | (_)experts_implementation(_internal), kernel_config, use_kernels, quantization_config |
| generation_config.json | custom_generate; penalty_alpha, dola_layers, num_beam_groups, constraints (these |
| | choose a way to generate whose code is in a repository) |
| tokenizer_config.json, special_tokens_map.json | auto_map, tokenizer_class, *_file |

`auto_map` is dropped and not refused: the published Phi-3 have it, and its Python files are never fetched.
"""

import re
from typing import Any

from steps.checkpoint.transformers_source import defines_tokenizer
from steps.common.errors import StepError

# Implementations of attention and experts inside transformers. Any other value can be a repository with code.
_IMPLEMENTATIONS = (
    None,
    "eager",
    "sdpa",
    "flash_attention_2",
    "flash_attention_3",
    "flex_attention",
    "paged_attention",
    "grouped_mm",
    "batched_mm",
)
_NAMES_AN_IMPLEMENTATION = re.compile(r"implementation")
# Names of fields whose value is code, or a repository with code.
_NAMES_CODE = re.compile(
    r"kernel|custom_(generate|code|pipeline)|trust_remote|remote_code|code_revision"
    r"|(^|_)(repo|repository|module|plugin|hook|script)(_|$)"
)
# Where a checkpoint was saved or loaded; a kind of KV cache; Python files of the repository, see above.
_HARMLESS = {"_name_or_path", "name_or_path", "cache_implementation", "auto_map"}
_CLASS_NAME = re.compile(r"\w+")


def refuse_code(content: Any, file: str, where: str = "") -> None:
    """Raise StepError for the first field, at any depth, that can name code.

    Args:
        content: the content of a JSON file, or a part of it.
        file: the file's name, for errors.
        where: the fields above this part, for errors.
    """
    if isinstance(content, list):
        for index, value in enumerate(content):
            refuse_code(value, file, f"{where}[{index}]")
    if not isinstance(content, dict):
        return
    for key, value in content.items():
        field = f"{where}.{key}" if where else str(key)
        if key in _HARMLESS:
            continue
        if _NAMES_AN_IMPLEMENTATION.search(key):
            _check_implementation(value, file, field)
        elif _NAMES_CODE.search(key) and _can_name(value):
            raise StepError(_refusal(file, field, value))
        else:
            refuse_code(value, file, field)


def _can_name(value: Any) -> bool:
    """Return whether a value is `true`, or holds a text. A number names no repository."""
    if isinstance(value, dict | list):
        return any(_can_name(part) for part in (value.values() if isinstance(value, dict) else value))
    return value is True or (isinstance(value, str) and value != "")


def _check_implementation(value: Any, file: str, field: str) -> None:
    values = value.values() if isinstance(value, dict) else [value]
    for implementation in values:
        if isinstance(implementation, dict | list) or implementation not in _IMPLEMENTATIONS:
            raise StepError(_refusal(file, field, implementation))


def check_tokenizer_class(name: Any, file: str) -> None:
    """Raise StepError if a tokenizer class is not one of transformers' own.

    transformers takes any name that it exports for a tokenizer class, and code of the repository for any other.

    Args:
        name: the value of the field `tokenizer_class`; None if it is missing.
        file: the file's name, for errors.
    """
    if name is None:
        return
    if not isinstance(name, str) or not _CLASS_NAME.fullmatch(name):
        raise StepError(_refusal(file, "tokenizer_class", name))
    if not defines_tokenizer(name):
        raise StepError(
            f"{file}: tokenizer_class {name} is not a tokenizer that transformers has natively, and code of a "
            "repository is never run: save the tokenizer again as tokenizer.json with tokenizer_class "
            "PreTrainedTokenizerFast"
        )


def _refusal(file: str, field: str, value: Any) -> str:
    shown = repr(value)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    return (
        f"{file} sets {field} to {shown}, which can make transformers download and run code: remove the field if you "
        "trust the checkpoint without it, or use another checkpoint"
    )
