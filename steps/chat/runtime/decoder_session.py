"""A loaded decoder graph and its KV cache rows: the operations that both kinds of KV cache share."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import onnxruntime as ort

from .graph import FIRST_LOGIT, DecoderGraph


class DecoderSession(ABC):
    """A decoder graph and the rows of its KV cache. Only one thread may use it at a time.

    Prefill works on one row. A decode step works on neighbouring rows, and each row has its own length.

    A `mask_length` is the least length of the attention mask, in tokens. It is never shorter than the longest row.
    A graph with two sets of LongRoPE factors chooses by the mask's length. So a longer mask asks for the long factors.
    """

    long_prompts_in_one_run: ClassVar[bool]  # LongRoPE's factors follow the last position of a run, not the mask_length

    def __init__(self, session: ort.InferenceSession, graph: DecoderGraph, provider: str, rows: int) -> None:
        """
        Args:
            provider: a key of session.PROVIDERS.
            rows: how many sequences the KV cache can hold at the same time.
        """
        self.graph, self.provider, self.rows = graph, provider, rows
        self._session = session

    @abstractmethod
    def prefill(self, row: int, tokens: Sequence[int], past: int, mask_length: int = 0, logits: int = 0) -> np.ndarray:
        """Append the keys and values of `tokens` to the first `past` tokens of a row.

        Args:
            logits: how many of the last tokens the caller wants logits for. A graph that does not select logits
                takes 0 or len(tokens).

        Returns:
            The logits after each of those tokens: float32 [logits, vocabulary].
        """

    @abstractmethod
    def decode(self, first: int, tokens: Sequence[int], lengths: Sequence[int], mask_length: int = 0) -> np.ndarray:
        """Append one token to each of the len(tokens) rows from row `first` on.

        Args:
            lengths: the length of each row after the step, in tokens.

        Returns:
            The logits of each row's next token: float32 [rows, vocabulary]. A later call for the same rows may
            overwrite them.
        """

    @abstractmethod
    def copy(self, source: int, target: int, length: int) -> None:
        """Overwrite row `target` with the first `length` tokens of row `source`."""

    @abstractmethod
    def free(self, row: int) -> None:
        """Empty a row and give its memory back."""

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
