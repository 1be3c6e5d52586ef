"""The logits of a model over given tokens, a block of positions at a time, so that a large vocabulary fits into memory.

The model is a checkpoint folder, or what MLflow logged: a model of the transformers flavor, or a model with an ONNX
folder among its artifacts, made by onnxruntime-genai's model builder or by optimum.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import yaml

from steps.chat.runtime.cpus import usable_cpus

_BLOCK = 128  # positions


class TokenLogits(Protocol):
    """A loaded model that gives the logits of all positions."""

    vocabulary: int
    bytes_read_per_token: int  # of the weights, by a decode step. It reads one row of the embedding, which is left out

    def blocks(self, tokens: Sequence[int], first: int) -> Iterator[np.ndarray]:
        """Yield the logits after each token, from position `first` on, but not after the last.

        No token of the text follows the last token. A block is float32 [positions, vocabulary].
        """


def open_logits(folder: Path) -> TokenLogits | None:
    """Load a downloaded MLflow model; return None if it has neither a checkpoint nor an ONNX folder."""
    flavors = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))["flavors"]
    if "transformers" in flavors:
        weights = folder / flavors["transformers"].get("model_binary", "model")
        return TorchLogits(weights) if (weights / "config.json").is_file() else None
    artifacts = flavors.get("python_function", {}).get("artifacts", {})
    for artifact in artifacts.values():
        artifact_folder = folder / artifact["path"]
        if (artifact_folder / "genai_config.json").is_file():
            return OnnxLogits(artifact_folder)
    return None


class OnnxLogits:
    """A converted folder, in the session that the custom model runs it in."""

    def __init__(self, folder: Path) -> None:
        from steps.chat.runtime.session import open_session  # here, since ONNX Runtime takes time to import

        self._session = open_session(folder, usable_cpus(), "cpu", 1)
        self.vocabulary = self._session.graph.vocab_size
        self.bytes_read_per_token = _bytes_read_per_token(folder)

    def blocks(self, tokens: Sequence[int], first: int) -> Iterator[np.ndarray]:
        """See TokenLogits."""
        past, end = 0, len(tokens) - 1
        if first and self._session.graph.selects_logits:  # no logits are computed for the context
            self._session.prefill(0, tokens[:first], 0)
            past = first
        while past < end:
            part = tokens[past : min(past + _BLOCK, end)]
            logits = self._session.prefill(0, part, past, logits=len(part))
            past += len(part)
            if past > first:
                yield logits[-(past - first) :]


class TorchLogits:
    """A checkpoint in PyTorch, in the data type of its weights; with `exact`, in float32."""

    def __init__(self, folder: Path, exact: bool = False) -> None:
        from transformers import AutoModelForCausalLM  # here, since it takes seconds to import

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
                output = self._model(ids[:, start:end], past_key_values=cache, use_cache=True)
                yield output.logits[0].float().numpy()


def _compute_in_float32(model: Any) -> None:
    """Make a model compute in float32, with one layer at a time in float32.

    Hooks widen the weights of a layer before it runs, and narrow them after it. Both are exact. There is no plainer
    way: a float32 copy of a model with 3.8 billion parameters takes 15 GB, and transformers cannot compute in a wider
    type than the weights have.
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
    for layer in [*body.layers, body.norm, model.get_output_embeddings()]:
        layer.register_forward_pre_hook(widen)
        layer.register_forward_hook(narrow_again)
    body.embed_tokens.register_forward_hook(lambda module, inputs, output: output.float())


def _bytes_read_per_token(folder: Path) -> int:
    import onnx_ir

    initializers = onnx_ir.load(next(folder.glob("*.onnx"))).graph.initializers
    return sum(
        value.const_value.nbytes
        for name, value in initializers.items()
        if value.const_value is not None and "embed_tokens" not in name
    )
