"""Read where a checkpoint's LongRoPE changes its factors."""

import json
from pathlib import Path


def longrope_switch(folder: Path) -> int:
    """Return the length in tokens past which the checkpoint's LongRoPE uses its long factors; 0 if it has none."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    original = config.get("original_max_position_embeddings")
    if not config.get("rope_scaling") or original in (None, config.get("max_position_embeddings")):
        return 0
    return int(original)
