"""A loaded decoder and the rows of its KV cache: what the scheduler asks of ONNX Runtime and of PyTorch alike."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Protocol

import numpy as np


class Decoder(Protocol):
    """What the users of a session must know of its decoder."""

    @property
    def context_length(self) -> int:
        """Tokens of a prompt and its answer, at most."""

    @property
    def vocab_size(self) -> int:
        """Logits of a token."""

    @property
    def end_tokens(self) -> tuple[int, ...]:
        """The tokens that end an answer."""

    @property
    def token_bytes(self) -> int:
        """Bytes of the keys and values of one token, all layers together."""

    @property
    def selects_logits(self) -> bool:
        """Whether a prefill computes only the logits that are asked for."""


class DecoderSession(ABC):
    """A decoder and the rows of its KV cache. Only one thread may use it at a time.

    Prefill works on one row. A decode step works on neighbouring rows, and each row has its own length.

    A `mask_length` is the least length of the attention mask, in tokens. It is never shorter than the longest row.
    A decoder with two sets of LongRoPE factors chooses by the mask's length. So a longer mask asks for the long
    factors.
    """

    long_prompts_in_one_run: ClassVar[bool]  # LongRoPE's factors follow the last position of a run, not the mask_length
    graph: Decoder
    rows: int  # how many sequences the KV cache can hold at the same time
    threads: int  # of the runtime

    @abstractmethod
    def prefill(self, row: int, tokens: Sequence[int], past: int, mask_length: int = 0, logits: int = 0) -> np.ndarray:
        """Append the keys and values of `tokens` to the first `past` tokens of a row.

        Args:
            logits: how many of the last tokens the caller wants logits for. A decoder that does not select logits
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
