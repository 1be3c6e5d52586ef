"""What the runtime gets wrong with a model, however well it was converted."""

import json
from pathlib import Path

_SWITCH = 4096  # the one length at which the runtime recomputes the cache of a phi3 model (generators.cpp, 0.15.2)


def longrope_switch(folder: Path) -> int:
    """The length past which the checkpoint's LongRoPE takes its long factors; 0 where it has no such length."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    original = config.get("original_max_position_embeddings")
    if not config.get("rope_scaling") or original in (None, config.get("max_position_embeddings")):
        return 0
    return original


def known_limits(folder: Path) -> tuple[str, ...]:
    """A sentence for each limit of ONNX Runtime GenAI 0.15.2 that the checkpoint's users meet.

    LongRoPE rotates keys by other factors as soon as the text is longer than original_max_position_embeddings, so that
    a cache made before is wrong afterwards. The runtime makes it anew when a single request's generation gets there.
    """
    original = longrope_switch(folder)
    if not original:
        return ()
    limits = [
        f"LongRoPE switches at {original} tokens. A prompt given whole is right at any length; tokens appended to a "
        "cache across the switch, a cache cut back across it, and batches of several rows that cross it are not."
    ]
    if original != _SWITCH:
        limits.append(f"Generation across {original} tokens is wrong: the runtime knows a switch at {_SWITCH} only.")
    else:
        limits[0] += " Generation of a single row across it is right."
    return tuple(limits)
