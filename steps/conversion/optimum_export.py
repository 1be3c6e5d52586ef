"""optimum's ONNX export, completed so that ONNX Runtime GenAI loads it."""

import contextlib
import inspect
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from steps.conversion.builder import build
from steps.conversion.options import ConversionOptions


def export(folder: Path, out: Path, choice: ConversionOptions) -> None:
    """Export a checkpoint with optimum, and write the genai_config.json and the tokenizer's files beside the graph.

    The builder writes genai_config.json for a graph that exists. It must also say what is special to optimum's graph:
    the graph takes position_ids, and it does not share its KV cache buffers.
    """
    from optimum.exporters.onnx import main_export

    with _both_longrope_factors():
        main_export(
            str(folder),
            str(out),
            task="text-generation-with-past",
            device=choice.device,
            dtype=choice.precision,
            opset=int(choice.options["opset"]) if "opset" in choice.options else None,
            do_validation=False,  # the caller compares logits, with the runtime that will run the graph
        )
    build(folder, out, replace(choice, options={"config_only": "true"}))
    path = out / "genai_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["model"]["decoder"]["inputs"]["position_ids"] = "position_ids"
    config["search"]["past_present_share_buffer"] = False
    path.write_text(json.dumps(config, indent=4), encoding="utf-8")


@contextlib.contextmanager
def _both_longrope_factors() -> Iterator[None]:
    """Make the choice between LongRoPE's short and long factors part of the traced graph, inside the block.

    transformers makes the choice with an `if` in Python. A trace keeps only the branch that its example takes, so the
    exported graph would be wrong past original_max_position_embeddings. optimum offers no hook, so transformers' class
    is patched, for the whole process. The formula is transformers' own
    (modeling_rope_utils._compute_longrope_parameters, after https://arxiv.org/abs/2402.13753).
    """
    import torch
    from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding

    original = Phi3RotaryEmbedding.forward
    undecorated = inspect.unwrap(original)  # without the decorator that makes the choice in Python

    def forward(self, x, position_ids):
        if self.rope_type == "longrope":
            last = self.config.original_max_position_embeddings
            short, long = (self.rope_init_fn(self.config, x.device, seq_len=n)[0] for n in (last, last + 1))
            self.inv_freq = torch.where(position_ids.max() + 1 > last, long, short)
        return undecorated(self, x, position_ids)

    Phi3RotaryEmbedding.forward = forward  # type: ignore[method-assign]  # the patch that the docstring explains
    try:
        yield
    finally:
        Phi3RotaryEmbedding.forward = original  # type: ignore[method-assign]  # the patch is taken back
