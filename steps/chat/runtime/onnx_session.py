"""A decoder graph in ONNX Runtime: the inputs and outputs that both kinds of KV cache bind alike."""

from collections.abc import Sequence

import numpy as np
import onnxruntime as ort

from .decoder_session import DecoderSession
from .graph import FIRST_LOGIT, DecoderGraph


class OnnxSession(DecoderSession):
    """A decoder graph in ONNX Runtime."""

    graph: DecoderGraph

    def __init__(self, session: ort.InferenceSession, graph: DecoderGraph, provider: str, rows: int) -> None:
        """
        Args:
            provider: a key of session.PROVIDERS.
            rows: how many sequences the KV cache can hold at the same time.
        """
        self.graph, self.provider, self.rows = graph, provider, rows
        self.threads = session.get_session_options().intra_op_num_threads
        self._session = session

    def _run(self, binding: ort.IOBinding, tokens: np.ndarray, lengths: Sequence[int], mask_length: int) -> None:
        """Bind the inputs other than the KV cache, and run the graph.

        Args:
            tokens: int64 [rows, tokens of each row].
            lengths: the length of each row after the run.
        """
        ends = np.asarray(lengths)[:, None]
        mask = (np.arange(max(mask_length, ends.max()))[None] < ends).astype(np.int64)
        # A binding does not keep these arrays alive. They are local variables until the run is over.
        binding.bind_cpu_input("input_ids", tokens)
        binding.bind_cpu_input("attention_mask", mask)
        if self.graph.has_position_ids:
            count = tokens.shape[1]
            positions = np.ascontiguousarray(ends - count + np.arange(count)[None], np.int64)
            binding.bind_cpu_input("position_ids", positions)
        self._session.run_with_iobinding(binding)

    def _bind_prefill_logits(self, binding: ort.IOBinding, tokens: int, logits: int) -> np.ndarray:
        """Return the array [logits, vocabulary] that a prefill of one row will write its last logits to."""
        if self.graph.selects_logits:
            # bind_cpu_input rejects an input that has a default value; bind_ortvalue_input accepts it.
            first = ort.OrtValue.ortvalue_from_numpy(np.array([tokens - logits], np.int64))
            binding.bind_ortvalue_input(FIRST_LOGIT, first)
        if logits == 0:
            return np.empty((0, self.graph.vocab_size), self.graph.logits_dtype)
        return self._bind_logits(binding, 1, logits)[0]

    def _bind_logits(self, binding: ort.IOBinding, rows: int, tokens: int) -> np.ndarray:
        """Return the array [rows, tokens, vocabulary] that the graph will write its logits to."""
        logits = np.empty((rows, tokens, self.graph.vocab_size), self.graph.logits_dtype)
        binding.bind_output("logits", "cpu", 0, self.graph.logits_dtype, logits.shape, logits.ctypes.data)
        return logits
