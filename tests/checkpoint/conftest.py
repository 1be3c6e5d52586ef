"""Fixtures of the checkpoint tests."""

import shutil
from pathlib import Path

import pytest

from tests.checkout import TINY


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
