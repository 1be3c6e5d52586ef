"""Refuse configurations that can make transformers run code, and drop the fields that transformers 4.57 does not know.

transformers 4.56 to 5.2 download and run the kernel repository that `_attn_implementation_internal` in config.json
names, whatever trust_remote_code says (CVE-2026-4372). So config.json is read by an allow-list: the fields that the
configuration class of its architecture defines. A field outside the list is dropped if it is harmless, and refused if
its name or its value can stand for code.
"""

import ast
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from steps.common.errors import StepError

# Implementations of attention inside transformers. Any other value is the name of a repository with code.
_IMPLEMENTATIONS = (
    None,
    "eager",
    "sdpa",
    "flash_attention_2",
    "flash_attention_3",
    "flex_attention",
    "paged_attention",
)
_NAMES_AN_IMPLEMENTATION = re.compile(r"implementation")
# Names of fields whose value is code, or a repository with code.
_NAMES_CODE = re.compile(
    r"kernel|custom_(generate|code|pipeline)|trust_remote|remote_code"
    r"|(^|_)(repo|repository|module|plugin|hook|script)(_|$)"
)
_HARMLESS = {"_name_or_path", "name_or_path"}  # where a checkpoint was saved or loaded
_AUTO_MAP = "auto_map"  # names classes in Python files of the repository; never run, and dropped with the files
_SAVED_BY_ALL = ("architectures", "model_type", "dtype", "torch_dtype", "transformers_version", "head_dim")


def allowed_config(config: dict[str, Any], name: str) -> tuple[dict[str, Any], list[str]]:
    """Return the fields of config.json that the configuration class of its model type defines, and the dropped names.

    Raises:
        StepError: a field, at any depth, can name code.
    """
    refuse_code(config, name)
    fields = {*_config_fields(str(config.get("model_type", ""))), *_SAVED_BY_ALL}
    return {key: value for key, value in config.items() if key in fields}, sorted(set(config) - fields)


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
        if key in _HARMLESS or key == _AUTO_MAP:
            continue
        if _NAMES_AN_IMPLEMENTATION.search(str(key)):
            _check_implementation(value, file, field)
        elif _NAMES_CODE.search(str(key)) and value not in (None, False, "", [], {}):
            raise StepError(_refusal(file, field, value))
        else:
            refuse_code(value, file, field)


def _check_implementation(value: Any, file: str, field: str) -> None:
    values = value.values() if isinstance(value, dict) else [value]
    for implementation in values:
        if isinstance(implementation, dict | list) or implementation not in _IMPLEMENTATIONS:
            raise StepError(_refusal(file, field, implementation))


def _refusal(file: str, field: str, value: Any) -> str:
    shown = repr(value)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    return (
        f"{file} sets {field} to {shown}, which can make transformers download and run code: remove the field if you "
        "trust the checkpoint without it, or use another checkpoint"
    )


@cache
def _config_fields(model_type: str) -> frozenset[str]:
    """Return the arguments of the configuration class of a model type and of its base class.

    The source is parsed, because importing transformers takes seconds.
    """
    spec = find_spec("transformers")
    if spec is None or spec.submodule_search_locations is None:
        raise StepError("transformers is not installed: install the project's environment, conda.yaml")
    root = Path(spec.submodule_search_locations[0])
    name = re.sub(r"\W", "_", model_type)
    files = (root / "configuration_utils.py", root / "models" / name / f"configuration_{name}.py")
    return frozenset(argument for file in files if file.is_file() for argument in _init_arguments(file))


def _init_arguments(file: Path) -> set[str]:
    arguments: set[str] = set()
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            arguments.update(argument.arg for argument in (*node.args.args, *node.args.kwonlyargs))
    return arguments - {"self"}
