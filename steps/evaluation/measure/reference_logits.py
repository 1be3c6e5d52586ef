"""Write the logits of the reference to a file, and score a model against them.

The worker processes call these functions. The logits lie on disk, so that no two models are in memory at the same time.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from steps.evaluation.inputs.windows import Window
from steps.evaluation.measure.fidelity import score_stream
from steps.evaluation.measure.logits import TorchLogits, open_logits


def write_logits(checkpoint: Path, windows: Sequence[dict[str, Any]], out: Path, progress: Callable[[], object]) -> int:
    """Write the logits of a checkpoint over all windows to a file, float32 [tokens, vocabulary].

    Args:
        windows: of Window, as JSON.
        progress: called after each window.

    Returns:
        The size of the vocabulary.
    """
    model = TorchLogits(checkpoint, exact=True)
    with out.open("wb") as file:
        for window in [Window(**row) for row in windows]:
            for block in model.blocks(window.tokens, window.first):
                file.write(block.tobytes())
            progress()
    return model.vocabulary


def score_model(
    model_folder: Path,
    windows: Sequence[dict[str, Any]],
    reference: tuple[Path, int],
    out: Path,
    progress: Callable[[], object],
) -> dict[str, Any]:
    """Score the tokens of all windows, and write the scores to a .npy file. See fidelity.score_tokens.

    Args:
        model_folder: a downloaded MLflow model.
        windows: of Window, as JSON.
        reference: the file of write_logits, and the size of its vocabulary.
        progress: called after each window.

    Returns:
        `reason`: why there are no scores, or None. `bytes_read_per_token` of decoding, or None.
    """
    file, vocabulary = reference
    model = open_logits(model_folder)
    if model is None:
        return {"reason": "evaluate cannot read the logits of this kind of model", "bytes_read_per_token": None}
    if model.vocabulary != vocabulary:
        reason = f"its vocabulary has {model.vocabulary} tokens, and the reference's {vocabulary}"
        return {"reason": reason, "bytes_read_per_token": model.bytes_read_per_token}
    scores, done = [], 0
    for window in [Window(**row) for row in windows]:
        shape = (len(window.targets), vocabulary)
        expected = np.memmap(file, np.float32, "r", offset=4 * done * vocabulary, shape=shape)
        scores.append(score_stream(expected, model.blocks(window.tokens, window.first), window.targets))
        done += len(window.targets)
        progress()
    np.save(out, np.concatenate(scores))
    return {"reason": None, "bytes_read_per_token": model.bytes_read_per_token}
