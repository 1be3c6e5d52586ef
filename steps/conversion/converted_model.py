"""A converted folder in ONNX Runtime GenAI: as it is served, or without the rounding of activations."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

_UNROUNDED = "unrounded.onnx"  # the graph's copy, which exists only until it is loaded
_FLOAT = 1  # the accuracy level at which MatMulNBits multiplies by activations in float32; at 4, in int8


class ConvertedModel:
    """The model of a converted folder. It reads tokens, not text."""

    def __init__(self, folder: Path, rounds_activations: bool = True) -> None:
        """Load the model.

        Args:
            rounds_activations: False computes with activations in float32. The weights stay as they are.
        """
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when the runtime is imported
        import onnxruntime_genai as og

        self._og = og
        config: Any = og.Config(str(folder))
        if rounds_activations:
            self._model = og.Model(config)
            return
        copy = folder / _UNROUNDED  # beside the data file that the graph names
        try:
            graph = ir.load(folder / "model.onnx")
            for node in graph.graph:
                if node.op_type == "MatMulNBits":
                    node.attributes["accuracy_level"] = ir.AttrInt64("accuracy_level", _FLOAT)
            ir.save(graph, copy)
            session = {"session.qdq_matmulnbits_accuracy_level": str(_FLOAT)}  # where the runtime makes MatMulNBits
            config.overlay(json.dumps({"model": {"decoder": {"filename": copy.name, "session_options": session}}}))
            self._model = og.Model(config)
        finally:
            copy.unlink(missing_ok=True)

    def answer(self, prompt: list[int], length: int, end_tokens: list[int]) -> list[int]:
        """Return the greedy answer to a prompt: at most `length` tokens, or up to an end token."""
        generator = self._generator(len(prompt) + length + 1)
        generator.append_tokens(prompt)
        tokens: list[int] = []
        while len(tokens) < length and not (tokens and tokens[-1] in end_tokens):
            if tokens:
                generator.append_tokens(tokens[-1:])
            tokens.append(int(generator.get_logits().reshape(-1).argmax()))
        return tokens

    def answer_logits(self, prompt: list[int], answer: list[int]) -> np.ndarray:
        """Return the logits [answer, vocabulary] before each token of an answer, computed as when it was generated."""
        generator = self._generator(len(prompt) + len(answer) + 1)
        rows = []
        for piece in (prompt, *([token] for token in answer[:-1])):
            generator.append_tokens(piece)
            rows.append(generator.get_logits().reshape(-1).copy())
        return np.stack(rows).astype(np.float32)

    def text_logits(self, tokens: list[int]) -> np.ndarray:
        """Return the logits [tokens, vocabulary] after each token of a text."""
        generator = self._generator(len(tokens) + 1)
        generator.append_tokens(tokens)
        logits = generator.get_output("logits")[0]
        if len(logits) == len(tokens):
            return logits.astype(np.float32)
        # The graph computes the logits of the last token alone (prune_lm_head): give it one token at a time.
        return self.answer_logits(tokens[:1], [*tokens[1:], 0])

    def _generator(self, length: int) -> Any:
        params = self._og.GeneratorParams(self._model)
        params.set_search_options(max_length=length, do_sample=False)
        return self._og.Generator(self._model, params)
