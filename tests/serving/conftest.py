"""Loaded models and servers that the tests of the server share."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # the fixtures import what they need, because the unit tests need none of it
    from steps.serving.models import ServedModel
    from tests.serving.harness import Server


@pytest.fixture(scope="session")
def model_folder(converted: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The float32 chat model as wrap_custom logs it."""
    from tests.chat.models import save_model

    return save_model(converted["genai fp32"], tmp_path_factory.mktemp("served") / "model")


@pytest.fixture(scope="session")
def custom(model_folder: Path) -> "ServedModel":
    """That model, loaded."""
    from steps.serving.models import ServedModel
    from tests.serving.harness import NAME

    return ServedModel(str(model_folder), NAME, timeout=600)


@pytest.fixture(scope="session")
def with_tools(converted: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> "ServedModel":
    """The same weights with Phi-4-mini's chat template, which has tools."""
    from steps.serving.models import ServedModel
    from tests.chat.models import save_model
    from tests.checkpoints.phi_tokenizers import TEMPLATES
    from tests.serving.harness import NAME

    scratch = tmp_path_factory.mktemp("tools")
    folder = shutil.copytree(converted["genai fp32"], scratch / "onnx")
    (folder / "chat_template.jinja").write_text(TEMPLATES["phi-4-mini"])
    return ServedModel(str(save_model(folder, scratch / "model")), NAME, timeout=600)


@pytest.fixture(scope="module")
def server(custom: "ServedModel") -> "Iterator[Server]":
    """A server of that model with the limits as they come."""
    from tests.serving.harness import running

    with running(custom) as server:
        yield server
