"""The decoder graph of a converted folder, run by ONNX Runtime on rows of keys and values.

A row holds the keys and values of one text. Prefill works on one row, a decode step on several neighbours at once, each
of its own length. Two kinds of graph:

- the model builder's, whose attention takes one buffer for past and present, so that rows lie side by side in memory
  that is never copied for a step (`SharedRows`);
- any other, such as optimum's, which returns past and present joined, in memory of its own for a row (`JoinedRows`).
"""

import contextlib
import mmap
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when the runtime is imported

import numpy as np  # noqa: E402
import onnxruntime as ort  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402

from .tokenizer import read_config  # noqa: E402

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
FIRST_LOGIT = "first_logit"  # the input that the conversion gives a graph, to choose which logits to compute
_FIRST_CAPACITY = 4096  # tokens of a row before it is made larger; only what is written takes memory
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


def open_graph(folder: Path, threads: int, provider: str, rows: int) -> "Rows":
    """Load the graph of a folder with a genai_config.json.

    Args:
        threads: of ONNX Runtime.
        provider: a key of PROVIDERS.
        rows: how many texts it may hold.

    Raises:
        MlflowException: the execution provider is unknown or not in this installation of ONNX Runtime.
    """
    available = ort.get_available_providers()
    if PROVIDERS.get(provider) not in available:
        has = ", ".join(name for name, full in PROVIDERS.items() if full in available)
        raise MlflowException.invalid_parameter_value(
            f"model config: provider is {provider!r}; this installation of onnxruntime {ort.__version__} has: {has}. "
            "Give one of those, or install the onnxruntime package that has it (onnxruntime-gpu for cuda)"
        )
    config = read_config(folder)
    decoder = config["model"]["decoder"]
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = ort.InferenceSession(str(folder / decoder["filename"]), options, providers=[PROVIDERS[provider]])
    shares = config["search"]["past_present_share_buffer"] and provider == "cpu"
    return (SharedRows if shares else JoinedRows)(session, config["model"], provider, rows)


class Rows(ABC):
    """A graph and its rows. One thread at a time.

    A width is the length of the attention mask: at least the longest row's, and more where a graph with two sets of
    LongRoPE factors, which chooses by it, is to take the long ones.
    """

    def __init__(self, session: ort.InferenceSession, config: dict[str, Any], provider: str, rows: int) -> None:
        decoder = config["decoder"]
        self.count, self.provider = rows, provider
        self.context_length: int = config["context_length"]
        self.vocabulary: int = config["vocab_size"]
        self._session = session
        types = {value.name: value.type for value in session.get_inputs()}
        self._positions = "position_ids" in types
        names = decoder["inputs"]["past_key_names"], decoder["inputs"]["past_value_names"]
        self._past = [name % i for i in range(decoder["num_hidden_layers"]) for name in names]
        names = decoder["outputs"]["present_key_names"], decoder["outputs"]["present_value_names"]
        self._present = [name % i for i in range(decoder["num_hidden_layers"]) for name in names]
        self._dtype = np.dtype(_TYPES[types[self._past[0]]])
        logits = next(value for value in session.get_outputs() if value.name == "logits")
        self._logits_type = _TYPES[logits.type]
        self._heads, self._head_size = decoder["num_key_value_heads"], decoder["head_size"]
        self.token_bytes = len(self._past) * self._heads * self._head_size * self._dtype.itemsize
        self.chooses_logits = FIRST_LOGIT in [value.name for value in session.get_overridable_initializers()]

    @abstractmethod
    def extend(self, row: int, tokens: Sequence[int], past: int, width: int, logits: int = 0) -> np.ndarray:
        """Append the keys and values of tokens to the first `past` of a row.

        Args:
            logits: after how many of the last tokens those of the next are wanted; a graph that does not
                `chooses_logits` has none or all.

        Returns:
            float32 [logits, vocabulary].
        """

    @abstractmethod
    def step(self, first: int, tokens: Sequence[int], lengths: Sequence[int], width: int) -> np.ndarray:
        """Append a token to each of the rows from `first` on.

        Args:
            lengths: the rows' lengths afterwards.

        Returns:
            The logits of the next token, float32 [rows, vocabulary], valid until the next call.
        """

    @abstractmethod
    def copy(self, source: int, target: int, length: int) -> None:
        """Overwrite the beginning of a row with another's first `length` tokens."""

    @abstractmethod
    def free(self, row: int) -> None:
        """Forget a row, and give its memory back."""

    def _inputs(self, binding: Any, tokens: np.ndarray, lengths: Sequence[int], width: int) -> list[np.ndarray]:
        """Bind input_ids, attention_mask and position_ids; the arrays must live as long as the run."""
        ends = np.asarray(lengths)[:, None]
        arrays = [tokens, (np.arange(max(width, ends.max()))[None] < ends).astype(np.int64)]
        binding.bind_cpu_input("input_ids", tokens)
        binding.bind_cpu_input("attention_mask", arrays[1])
        if self._positions:
            count = tokens.shape[1]
            arrays.append(np.ascontiguousarray(ends - count + np.arange(count)[None], np.int64))
            binding.bind_cpu_input("position_ids", arrays[2])
        return arrays

    def _last_logits(self, binding: Any, tokens: Sequence[int], count: int) -> np.ndarray:
        """Have those after the last `count` tokens of one row computed."""
        if self.chooses_logits:
            value = ort.OrtValue.ortvalue_from_numpy(np.array([len(tokens) - count], np.int64))
            binding.bind_ortvalue_input(FIRST_LOGIT, value)  # bind_cpu_input knows no input that has a default
        return self._output(binding, 1, count)[0] if count else np.empty((0, self.vocabulary), self._logits_type)

    def _output(self, binding: Any, rows: int, count: int) -> np.ndarray:
        logits = np.empty((rows, count, self.vocabulary), self._logits_type)
        binding.bind_output("logits", "cpu", 0, self._logits_type, logits.shape, logits.ctypes.data)
        return logits


class SharedRows(Rows):
    """Rows side by side in one anonymous mapping a layer; pages that were never written take no memory."""

    def __init__(self, session: ort.InferenceSession, config: dict[str, Any], provider: str, rows: int) -> None:
        super().__init__(session, config, provider, rows)
        self._capacity = min(_FIRST_CAPACITY, -(-self.context_length // 64) * 64)
        self._lengths = [0] * rows
        self._map()

    def _map(self) -> None:
        self._window: tuple[int, int] | None = None
        shape = (self.count, self._heads, self._capacity, self._head_size)
        size = int(np.prod(shape)) * self._dtype.itemsize
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self._mappings = [mmap.mmap(-1, size, flags=flags) for _ in self._past]
        for mapping in self._mappings:  # or a kernel set to huge pages would give 2 MiB for each token's 4 KiB
            with contextlib.suppress(AttributeError, OSError):
                mapping.madvise(mmap.MADV_NOHUGEPAGE)
        self._arrays = [np.frombuffer(mapping, self._dtype).reshape(shape) for mapping in self._mappings]

    def _reach(self, length: int) -> None:
        """Make the rows longer where a text outgrows them: twice as long, up to the context."""
        if length <= self._capacity:
            return
        before = self._arrays
        most = -(-(self.context_length + 1) // 64) * 64
        self._capacity = min(max(2 * self._capacity, -(-length // 64) * 64), most)
        self._map()
        for old, new in zip(before, self._arrays, strict=True):
            for row, used in enumerate(self._lengths):
                new[row, :, :used] = old[row, :, :used]

    def _bind(self, first: int, count: int) -> Any:
        binding = self._session.io_binding()
        for past, present, array in zip(self._past, self._present, self._arrays, strict=True):
            rows = array[first : first + count]
            place = ("cpu", 0, self._dtype, rows.shape, rows.ctypes.data)
            binding.bind_input(past, *place)
            binding.bind_output(present, *place)
        return binding

    def extend(self, row: int, tokens: Sequence[int], past: int, width: int, logits: int = 0) -> np.ndarray:
        self._reach(max(past + len(tokens), width))
        binding = self._bind(row, 1)
        arrays = self._inputs(binding, np.array([tokens], np.int64), [past + len(tokens)], width)
        found = self._last_logits(binding, tokens, logits)
        self._session.run_with_iobinding(binding)
        self._lengths[row] = past + len(tokens)
        del arrays
        return found.astype(np.float32, copy=False)

    def step(self, first: int, tokens: Sequence[int], lengths: Sequence[int], width: int) -> np.ndarray:
        self._reach(max(*lengths, width))
        if self._window != (first, len(tokens)):  # the same rows as in the last step, as a rule
            self._window, self._binding = (first, len(tokens)), self._bind(first, len(tokens))
            self._logits = self._output(self._binding, len(tokens), 1)[:, 0]
        arrays = self._inputs(self._binding, np.array(tokens, np.int64)[:, None], lengths, width)
        self._session.run_with_iobinding(self._binding)
        self._lengths[first : first + len(tokens)] = lengths
        del arrays
        return self._logits.astype(np.float32, copy=False)

    def copy(self, source: int, target: int, length: int) -> None:
        for array in self._arrays:
            array[target, :, :length] = array[source, :, :length]
        self._lengths[target] = length

    def free(self, row: int) -> None:
        self._lengths[row] = 0
        size = self._arrays[0][row].nbytes
        for mapping in self._mappings:
            if hasattr(mmap, "MADV_DONTNEED"):
                mapping.madvise(mmap.MADV_DONTNEED, row * size, size)


class JoinedRows(Rows):
    """Each row's keys and values as the graph returned them, on the provider's device; rows decode one by one."""

    def __init__(self, session: ort.InferenceSession, config: dict[str, Any], provider: str, rows: int) -> None:
        super().__init__(session, config, provider, rows)
        empty = np.empty((1, self._heads, 0, self._head_size), self._dtype)
        self._empty = [ort.OrtValue.ortvalue_from_numpy(empty, provider, 0)] * len(self._past)
        self._rows: list[list[ort.OrtValue]] = [self._empty] * rows

    def extend(self, row: int, tokens: Sequence[int], past: int, width: int, logits: int = 0) -> np.ndarray:
        self.copy(row, row, past)
        binding = self._session.io_binding()
        for name, value in zip(self._past, self._rows[row], strict=True):
            binding.bind_ortvalue_input(name, value)
        for name in self._present:
            binding.bind_output(name, self.provider)
        arrays = self._inputs(binding, np.array([tokens], np.int64), [past + len(tokens)], width)
        found = self._last_logits(binding, tokens, logits)
        self._session.run_with_iobinding(binding)
        del arrays
        self._rows[row] = list(binding.get_outputs()[: len(self._present)])
        return found.astype(np.float32, copy=False)

    def step(self, first: int, tokens: Sequence[int], lengths: Sequence[int], width: int) -> np.ndarray:
        found = [
            self.extend(first + i, [token], length - 1, width, logits=1)[0]
            for i, (token, length) in enumerate(zip(tokens, lengths, strict=True))
        ]
        return np.stack(found)

    def copy(self, source: int, target: int, length: int) -> None:
        values = self._rows[source]
        if values[0].shape()[2] == length:
            self._rows[target] = values  # never written to: a run makes new ones
        elif length == 0:
            self._rows[target] = self._empty
        else:
            cut = [np.ascontiguousarray(value.numpy()[:, :, :length]) for value in values]
            self._rows[target] = [ort.OrtValue.ortvalue_from_numpy(array, self.provider, 0) for array in cut]

    def free(self, row: int) -> None:
        self._rows[row] = self._empty
