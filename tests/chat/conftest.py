"""Engines and logged models that the tests of the custom model share."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.checkout import TINY

if TYPE_CHECKING:  # the fixtures import what they need, because the unit tests need none of it
    from mlflow.pyfunc import PyFuncModel

    from steps.chat.batching.engine import Engine


@pytest.fixture(scope="module")
def int4_engine(converted: dict[str, Path]) -> "Engine":
    """The int4 model."""
    from steps.chat.batching.engine import Engine

    return Engine(converted["genai int4"])


@pytest.fixture(scope="module")
def fp32_engine(converted: dict[str, Path]) -> "Engine":
    """The float32 model: its answers do not depend on how prompts are cut and which rows share a step."""
    from steps.chat.batching.engine import Engine

    return Engine(converted["genai fp32"])


@pytest.fixture(scope="session")
def model_folders(converted: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """MLflow models: one of each task in float32, "int4" (chat), and "tools", whose template is Phi-4-mini's.

    Quantised kernels may choose another token at a near tie if a prompt is cut otherwise. So tests that compare two
    answers use float32.
    """
    from steps.conversion.convert import convert
    from steps.conversion.options import parse_choice
    from tests.chat.models import CHAT, COMPLETIONS, save_model
    from tests.checkpoints.phi_tokenizers import TEMPLATES

    scratch = tmp_path_factory.mktemp("models")
    checkpoint = shutil.copytree(TINY, scratch / "checkpoint")
    (checkpoint / "chat_template.jinja").write_text(TEMPLATES["phi-4-mini"])
    convert(checkpoint, scratch / "onnx", parse_choice("genai", "int4", "", "cpu"))
    return {
        CHAT: save_model(converted["genai fp32"], scratch / "chat"),
        COMPLETIONS: save_model(converted["genai fp32"], scratch / "completions", COMPLETIONS),
        "int4": save_model(converted["genai int4"], scratch / "int4"),
        "tools": save_model(scratch / "onnx", scratch / "tools"),
    }


@pytest.fixture(scope="session")
def transformers_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """MLflow models of the shipped checkpoint over PyTorch in float32, one of each task, and "tools" as above."""
    from tests.chat.models import CHAT, COMPLETIONS, save_transformers_model
    from tests.checkpoints.phi_tokenizers import TEMPLATES

    scratch = tmp_path_factory.mktemp("transformers")
    checkpoint = shutil.copytree(TINY, scratch / "checkpoint")
    (checkpoint / "chat_template.jinja").write_text(TEMPLATES["phi-4-mini"])
    return {
        CHAT: save_transformers_model(TINY, scratch / "chat"),
        COMPLETIONS: save_transformers_model(TINY, scratch / "completions", COMPLETIONS),
        "tools": save_transformers_model(checkpoint, scratch / "tools"),
    }


@pytest.fixture(scope="module")
def transformers_models(transformers_folders: dict[str, Path]) -> "dict[str, PyFuncModel]":
    """The models of `transformers_folders`, loaded."""
    import mlflow

    return {name: mlflow.pyfunc.load_model(str(folder)) for name, folder in transformers_folders.items()}


@pytest.fixture(scope="module")
def models(model_folders: dict[str, Path]) -> "dict[str, PyFuncModel]":
    """The models of `model_folders`, loaded."""
    import mlflow

    return {name: mlflow.pyfunc.load_model(str(folder)) for name, folder in model_folders.items()}
