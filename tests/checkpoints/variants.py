"""Checkpoints as today's tools save them: copies of the shipped one with one change each, made without torch."""

import shutil
from pathlib import Path

from tests.checkout import TINY
from tests.checkpoints import settings_variants, weight_variants


def make_variant(folder: Path, name: str) -> Path:
    """Copy the shipped checkpoint to `folder`, change it as the variant of this name, and return the folder.

    Args:
        name: a function of settings_variants.py or weight_variants.py.
    """
    shutil.copytree(TINY, folder)
    change = getattr(settings_variants, name, None) or getattr(weight_variants, name)
    change(folder)
    return folder
