"""optimum's ONNX export, completed so that ONNX Runtime GenAI runs it."""

import contextlib
import inspect
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from steps.conversion.builder import build
from steps.conversion.options import ConversionOptions


def export(folder: Path, out: Path, choice: ConversionOptions) -> None:
    """optimum's graph, with the genai_config.json that the builder writes for a graph that exists already.

    optimum's graph takes position_ids and does not share its KV buffers, which that file must say.
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
            do_validation=False,  # the caller's business, with the runtime that will run it
        )
    build(folder, out, replace(choice, options={"config_only": "true"}))
    path = out / "genai_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["model"]["decoder"]["inputs"]["position_ids"] = "position_ids"
    config["search"]["past_present_share_buffer"] = False
    path.write_text(json.dumps(config, indent=4), encoding="utf-8")


@contextlib.contextmanager
def _both_longrope_factors() -> Iterator[None]:
    """Make transformers' choice between LongRoPE's short and long factors part of the traced graph.

    It is an `if` in Python, of which a trace keeps the branch of its example: the export would be wrong past
    original_max_position_embeddings. The formula is transformers' own
    (modeling_rope_utils._compute_longrope_parameters, after https://arxiv.org/abs/2402.13753).
    """
    import torch
    from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding

    before = Phi3RotaryEmbedding.forward
    plain = inspect.unwrap(before)  # without the decorator that chooses in Python

    def forward(self, x, position_ids):
        if self.rope_type == "longrope":
            last = self.config.original_max_position_embeddings
            short, long = (self.rope_init_fn(self.config, x.device, seq_len=n)[0] for n in (last, last + 1))
            self.inv_freq = torch.where(position_ids.max() + 1 > last, long, short)
        return plain(self, x, position_ids)

    Phi3RotaryEmbedding.forward = forward
    try:
        yield
    finally:
        Phi3RotaryEmbedding.forward = before
