"""Look up names in the source of the installed transformers. Importing it would take seconds."""

import ast
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from steps.common.errors import StepError


def defines_model(model_type: str, architecture: str) -> bool:
    """Return whether transformers has a class for an architecture in the module of its model type."""
    return f"\nclass {architecture}(" in _text("models", _module(model_type), f"modeling_{_module(model_type)}.py")


def defines_tokenizer(name: str) -> bool:
    """Return whether a name is one of transformers' tokenizer classes, with or without `Fast` at its end."""
    if name == "PreTrainedTokenizerFast":
        return True
    text = _text("models", "auto", "tokenization_auto.py")
    return any(
        f'"{spelling}"' in text for spelling in (name, f"{name}Fast") if spelling.endswith(("Fast", "Tokenizer"))
    )


def defines_activation(name: str) -> bool:
    """Return whether a name is one of transformers' activation functions, as `hidden_act` names them."""
    return f'"{name}"' in _text("activations.py")


@cache
def config_fields(model_type: str) -> frozenset[str]:
    """Return the arguments of the configuration class of a model type and of its base class."""
    name = _module(model_type)
    texts = (_text("configuration_utils.py"), _text("models", name, f"configuration_{name}.py"))
    return frozenset(argument for text in texts for argument in _init_arguments(text))


def _module(model_type: str) -> str:
    return re.sub(r"\W", "_", model_type)


@cache
def _text(*parts: str) -> str:
    """Return the text of a module of transformers; nothing if there is no such module."""
    spec = find_spec("transformers")
    if spec is None or spec.submodule_search_locations is None:
        raise StepError("transformers is not installed: install the project's environment, conda.yaml")
    file = Path(spec.submodule_search_locations[0]).joinpath(*parts)
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def _init_arguments(text: str) -> set[str]:
    arguments: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            arguments.update(argument.arg for argument in (*node.args.args, *node.args.kwonlyargs))
    return arguments - {"self"}
