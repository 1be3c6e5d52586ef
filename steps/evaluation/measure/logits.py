"""The logits of a model over given tokens, a block of positions at a time, so that large vocabularies fit.

Of a checkpoint folder, and of what MLflow logged: a model of the transformers flavor, or one whose artifacts are an
ONNX folder of onnxruntime-genai's layout, the builder's or optimum's.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import yaml

from steps.chat.runtime.cpus import usable_cpus

_BLOCK = 128


class TokenLogits(Protocol):
    """A loaded model."""

    vocabulary: int
    bytes_read_per_token: int  # bytes of the weights that a decode step reads: all but the rows of the embedding

    def blocks(self, tokens: Sequence[int], first: int) -> Iterator[np.ndarray]:
        """The logits after the tokens from position `first` to the last but one, float32 [tokens, vocabulary] each."""


def open_logits(folder: Path) -> TokenLogits | None:
    """Of a downloaded MLflow model; None where it is of no kind that can be looked into."""
    flavors = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))["flavors"]
    if "transformers" in flavors:
        weights = folder / flavors["transformers"].get("model_binary", "model")
        return TorchLogits(weights) if (weights / "config.json").is_file() else None
    artifacts = flavors.get("python_function", {}).get("artifacts", {})
    for artifact in artifacts.values():
        place = folder / artifact["path"]
        if (place / "genai_config.json").is_file():
            return OnnxLogits(place)
    return None


class OnnxLogits:
    """A converted folder, by the graph that its model runs."""

    def __init__(self, folder: Path) -> None:
        from steps.chat.runtime.session import open_session

        self._rows = open_session(folder, usable_cpus(), "cpu", 1)
        self.vocabulary = self._rows.graph.vocab_size
        self.bytes_read_per_token = _bytes_read_per_token(folder)

    def blocks(self, tokens: Sequence[int], first: int) -> Iterator[np.ndarray]:
        """See TokenLogits."""
        past = 0
        if first and self._rows.graph.selects_logits:
            self._rows.prefill(0, tokens[:first], 0, 0)
            past = first
        while past < len(tokens) - 1:
            part = tokens[past : min(past + _BLOCK, len(tokens) - 1)]
            found = self._rows.prefill(0, part, past, 0, logits=len(part))
            past += len(part)
            if past > first:
                yield found[-(past - first) :]


class TorchLogits:
    """A checkpoint in PyTorch, in the type of its weights, or exactly: in float32, a layer at a time."""

    def __init__(self, folder: Path, exact: bool = False) -> None:
        from transformers import AutoModelForCausalLM

        self._model = AutoModelForCausalLM.from_pretrained(
            folder, dtype="auto", low_cpu_mem_usage=True, local_files_only=True
        ).eval()
        self.vocabulary = self._model.config.vocab_size
        embedding, head = self._model.get_input_embeddings().weight, self._model.get_output_embeddings().weight
        size = sum(weight.nbytes for weight in self._model.parameters())
        self.bytes_read_per_token = size - (0 if embedding is head else embedding.nbytes)
        if exact:
            _compute_in_float32(self._model)

    def blocks(self, tokens: Sequence[int], first: int) -> Iterator[np.ndarray]:
        """See TokenLogits."""
        import torch
        from transformers import DynamicCache

        cache, ids = DynamicCache(), torch.tensor([tokens])
        ends = [*range(first, len(tokens) - 1, _BLOCK), len(tokens) - 1]
        with torch.inference_mode():
            if first:
                self._model(ids[:, :first], past_key_values=cache, use_cache=True, logits_to_keep=1)
            for start, end in zip(ends, ends[1:], strict=False):
                found = self._model(ids[:, start:end], past_key_values=cache, use_cache=True)
                yield found.logits[0].float().numpy()


def _compute_in_float32(model: Any) -> None:
    """Have each part's weights widened while it is at work, which is exact, so that one is held wide at a time.

    The weights themselves stay as they are; a whole float32 copy of 3.8B parameters would take 15 GB.
    """
    import torch

    narrow = next(model.parameters()).dtype
    if narrow == torch.float32:
        return

    def widen(module: Any, _: Any) -> None:
        module.float()

    def narrow_again(module: Any, *_: Any) -> None:
        module.to(narrow)

    body = model.base_model
    for part in [*body.layers, body.norm, model.get_output_embeddings()]:
        part.register_forward_pre_hook(widen)
        part.register_forward_hook(narrow_again)
    body.embed_tokens.register_forward_hook(lambda module, inputs, output: output.float())


def _bytes_read_per_token(folder: Path) -> int:
    import onnx_ir

    graph = next(folder.glob("*.onnx"))
    values = [v for v in onnx_ir.load(graph).graph.initializers.values() if v.const_value is not None]
    return sum(value.const_value.nbytes for value in values if "embed_tokens" not in (value.name or ""))
