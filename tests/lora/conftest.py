"""Fixtures of the tests of LoRA adapters: an adapter that changes answers, and access to the tracking store."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checkout import Project


@pytest.fixture(scope="session")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an adapter that changes answers."""
    from tests.checkpoints.lora import taught_adapter  # imports torch, and every run of pytest imports this file

    return taught_adapter(tmp_path_factory.mktemp("adapter") / "taught")


@pytest.fixture(scope="module", autouse=True)
def store(local: Project) -> Iterator[None]:
    """Let this process use the same tracking store."""
    with local.in_this_process():
        yield
