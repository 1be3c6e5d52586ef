"""Fixtures of the checkpoint tests."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from steps.common.errors import StepError
from steps.project.extras import python_with
from tests.checkout import TINY

HERE = Path(__file__).parent


@pytest.fixture
def folder(tmp_path) -> Path:
    """A copy of the shipped checkpoint, for tests that damage it."""
    return shutil.copytree(TINY, tmp_path / "checkpoint")


@pytest.fixture(scope="session")
def adapter(tmp_path_factory) -> Path:
    """An adapter on every matrix of the shipped checkpoint's layers."""
    from tests.checkpoints.lora import random_adapter  # imports torch, which the unit tests do not need

    return random_adapter(tmp_path_factory.mktemp("adapter") / "lora")


@pytest.fixture
def adapter_copy(adapter, tmp_path) -> Path:
    """A copy of the adapter, for tests that damage it."""
    return shutil.copytree(adapter, tmp_path / "adapter")


@pytest.fixture(scope="session")
def saved_by_transformers5(tmp_path_factory) -> Path:
    """Checkpoints `tiny` and `longrope`, and a tokenizer of each kind, as transformers 5 saves them, in one folder."""
    from tests.checkpoints.phi_tokenizers import TEMPLATES, make_tokenizer_checkpoint

    try:
        python = python_with(HERE / "transformers5.txt")
    except StepError as error:
        pytest.skip(f"needs transformers 5 from a package index: {error}")
    out, sources = tmp_path_factory.mktemp("transformers5"), tmp_path_factory.mktemp("sources")
    tokenizers = [make_tokenizer_checkpoint(sources / kind.replace(" ", "-"), kind) for kind in TEMPLATES]
    script = [python, HERE / "save_with_transformers5.py", TINY, out, *tokenizers]
    done = subprocess.run(script, env=os.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for tokenizer in tokenizers:
        for name in ("config.json", "generation_config.json", "model.safetensors"):
            (out / tokenizer.name / name).symlink_to(tokenizer / name)
    return out
