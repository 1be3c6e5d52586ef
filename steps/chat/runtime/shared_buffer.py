"""The KV cache of the model builder's graphs: one buffer per layer holds every row, and no step copies it.

Invariant: the first `lengths[row]` tokens of a row are written in the buffer of every layer; the rest is undefined.
The attention operator reads the past from a buffer and appends the present to the SAME buffer. So a decode step binds a
slice of neighbouring rows as both input and output. Each key and each value buffer, [rows, heads, capacity, head_size]:

    row 0 | t t t t t t . . . . . . . . . |     finished, kept for reuse
    row 1 | t t t t . . . . . . . . . . . | --+
    row 2 | t t t t t t t t t t . . . . . |   +-- one decode step binds this slice, and writes one token to each row
    row 3 | t t . . . . . . . . . . . . . | --+
    row 4 | . . . . . . . . . . . . . . . |     empty: its pages were never written, so they take no memory
           <----- capacity, in tokens ---->     doubles when a row outgrows it

The buffers are anonymous memory mappings, because the system gives memory to the pages that are written, and to no
others. numpy's own arrays offer no way to give the pages of one row back.
"""

import contextlib
import mmap
from collections.abc import Sequence

import numpy as np
import onnxruntime as ort

from .graph import DecoderGraph
from .onnx_session import OnnxSession

_FIRST_CAPACITY = 4096  # tokens of a row before the buffers grow
_BLOCK = 64  # a capacity is a multiple of this many tokens


class SharedBufferSession(OnnxSession):
    """A graph whose attention appends to its KV cache in place."""

    long_prompts_in_one_run = False

    def __init__(self, session: ort.InferenceSession, graph: DecoderGraph, provider: str, rows: int) -> None:
        """See DecoderSession."""
        super().__init__(session, graph, provider, rows)
        self._bound: tuple[int, int] | None = None  # the first row and the number of rows that _binding binds
        self._capacity = min(_FIRST_CAPACITY, _round_up(graph.context_length))
        self._lengths = [0] * rows
        self._allocate()

    def prefill(self, row: int, tokens: Sequence[int], past: int, mask_length: int = 0, logits: int = 0) -> np.ndarray:
        """See DecoderSession."""
        length = past + len(tokens)
        self._grow(max(length, mask_length))
        binding = self._bind_rows(row, 1)
        out = self._bind_prefill_logits(binding, len(tokens), logits)
        self._run(binding, np.array([tokens], np.int64), [length], mask_length)
        self._lengths[row] = length
        return out.astype(np.float32, copy=False)

    def decode(self, first: int, tokens: Sequence[int], lengths: Sequence[int], mask_length: int = 0) -> np.ndarray:
        """See DecoderSession."""
        self._grow(max(*lengths, mask_length))
        if self._bound != (first, len(tokens)):  # most steps decode the same rows as the step before
            self._bound, self._binding = (first, len(tokens)), self._bind_rows(first, len(tokens))
            self._logits = self._bind_logits(self._binding, len(tokens), 1)[:, 0]
        self._run(self._binding, np.array(tokens, np.int64)[:, None], lengths, mask_length)
        self._lengths[first : first + len(tokens)] = lengths
        return self._logits.astype(np.float32, copy=False)

    def copy(self, source: int, target: int, length: int) -> None:
        """See DecoderSession."""
        for buffer in self._buffers:
            buffer[target, :, :length] = buffer[source, :, :length]
        self._lengths[target] = length

    def free(self, row: int) -> None:
        """See DecoderSession."""
        self._lengths[row] = 0
        if hasattr(mmap, "MADV_DONTNEED"):
            row_bytes = self._buffers[0][row].nbytes
            for mapping in self._mappings:
                mapping.madvise(mmap.MADV_DONTNEED, row * row_bytes, row_bytes)

    def _allocate(self) -> None:
        """Make empty buffers of the present capacity, one for the keys and one for the values of each layer."""
        self._bound = None
        shape = (self.rows, self.graph.heads, self._capacity, self.graph.head_size)
        size = int(np.prod(shape)) * self.graph.kv_dtype.itemsize
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self._mappings = [mmap.mmap(-1, size, flags=flags) for _ in self.graph.past_names]
        for mapping in self._mappings:
            # A kernel that is set to huge pages would take 2 MiB where one token needs 4 KiB.
            with contextlib.suppress(AttributeError, OSError):
                mapping.madvise(mmap.MADV_NOHUGEPAGE)
        self._buffers = [np.frombuffer(mapping, self.graph.kv_dtype).reshape(shape) for mapping in self._mappings]

    def _grow(self, length: int) -> None:
        """Make room for rows of `length` tokens: double the capacity, but not past the context length."""
        if length <= self._capacity:
            return
        old_buffers = self._buffers
        limit = _round_up(self.graph.context_length + 1)  # a mask for LongRoPE may be one token longer
        self._capacity = min(max(2 * self._capacity, _round_up(length)), limit)
        self._allocate()
        for old, new in zip(old_buffers, self._buffers, strict=True):
            for row, used in enumerate(self._lengths):
                new[row, :, :used] = old[row, :, :used]

    def _bind_rows(self, first: int, count: int) -> ort.IOBinding:
        """Return a binding whose past and present are the same slice of `count` rows."""
        binding = self._session.io_binding()
        for past, present, buffer in zip(self.graph.past_names, self.graph.present_names, self._buffers, strict=True):
            rows = buffer[first : first + count]
            memory = ("cpu", 0, self.graph.kv_dtype, rows.shape, rows.ctypes.data)
            binding.bind_input(past, *memory)
            binding.bind_output(present, *memory)
        return binding


def _round_up(tokens: int) -> int:
    return -(-tokens // _BLOCK) * _BLOCK
