"""The KV cache of all other graphs, optimum's for example: each run returns past and present in new memory.

Invariant: a row is a tuple of tensors [1, heads, length, head_size] that nobody writes to. So two rows may hold the
same tensors, and a copy of a whole row costs nothing. Rows are not neighbours in memory, so a decode step runs each row
by itself:

    past of row 2   | t t t t |     + token ->  graph  ->   present  | t t t t T |   = row 2 from now on
"""

from collections.abc import Sequence

import numpy as np
import onnxruntime as ort

from .graph import DecoderGraph
from .onnx_session import OnnxSession


class ConcatenatedSession(OnnxSession):
    """A graph that returns past and present concatenated, on the device of its execution provider."""

    long_prompts_in_one_run = True

    def __init__(self, session: ort.InferenceSession, graph: DecoderGraph, provider: str, rows: int) -> None:
        """See DecoderSession."""
        super().__init__(session, graph, provider, rows)
        empty = np.empty((1, graph.heads, 0, graph.head_size), graph.kv_dtype)
        self._empty = [ort.OrtValue.ortvalue_from_numpy(empty, provider, 0)] * len(graph.past_names)
        self._tensors: list[list[ort.OrtValue]] = [self._empty] * rows

    def prefill(self, row: int, tokens: Sequence[int], past: int, mask_length: int = 0, logits: int = 0) -> np.ndarray:
        """See DecoderSession."""
        self.copy(row, row, past)
        binding = self._session.io_binding()
        for name, value in zip(self.graph.past_names, self._tensors[row], strict=True):
            binding.bind_ortvalue_input(name, value)
        for name in self.graph.present_names:  # the first outputs of the binding: see get_outputs below
            binding.bind_output(name, self.provider)
        out = self._bind_prefill_logits(binding, len(tokens), logits)
        self._run(binding, np.array([tokens], np.int64), [past + len(tokens)], mask_length)
        self._tensors[row] = list(binding.get_outputs()[: len(self.graph.present_names)])
        return out.astype(np.float32, copy=False)

    def decode(self, first: int, tokens: Sequence[int], lengths: Sequence[int], mask_length: int = 0) -> np.ndarray:
        """See DecoderSession."""
        logits = [
            self.prefill(first + index, [token], length - 1, mask_length, logits=1)[0]
            for index, (token, length) in enumerate(zip(tokens, lengths, strict=True))
        ]
        return np.stack(logits)

    def copy(self, source: int, target: int, length: int) -> None:
        """See DecoderSession."""
        tensors = self._tensors[source]
        if tensors[0].shape()[2] == length:
            self._tensors[target] = tensors
        elif length == 0:
            self._tensors[target] = self._empty
        else:
            cut = [np.ascontiguousarray(tensor.numpy()[:, :, :length]) for tensor in tensors]
            self._tensors[target] = [ort.OrtValue.ortvalue_from_numpy(array, self.provider, 0) for array in cut]

    def free(self, row: int) -> None:
        """See DecoderSession."""
        self._tensors[row] = self._empty
