"""Know what ONNX Runtime GenAI gets wrong with a model, however well the model was converted."""

from pathlib import Path

from steps.checkpoint.longrope import longrope_switch

# The only length at which the runtime recomputes the KV cache of a phi3 model (generators.cpp, 0.15.2).
_RUNTIMES_SWITCH = 4096


def known_limits(folder: Path) -> tuple[str, ...]:
    """Return a sentence for each limit of ONNX Runtime GenAI 0.15.2 that users of the checkpoint meet.

    LongRoPE rotates keys by other factors once the text is longer than original_max_position_embeddings. A KV cache
    from before is then wrong. The runtime computes it anew in one case: when the generation of a single request gets
    there.
    """
    switch = longrope_switch(folder)
    if not switch:
        return ()
    limit = (
        f"LongRoPE switches at {switch} tokens. A prompt given whole is right at any length. Answers are wrong after "
        "tokens appended to a cache across the switch, after a cache cut back across it, and in batches of several "
        "rows that cross it."
    )
    if switch == _RUNTIMES_SWITCH:
        return (f"{limit} Generation of a single row across it is right.",)
    return (
        limit,
        f"Generation across {switch} tokens is wrong: the runtime knows only a switch at {_RUNTIMES_SWITCH} tokens.",
    )
