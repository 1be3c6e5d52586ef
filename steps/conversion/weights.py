"""A weight of a converted model: it is stored as floats or as blocks of integers, and read as float32."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

Rows = slice | np.ndarray  # which rows: from one row to before another, or the numbers of the rows


class Weight(Protocol):
    """A matrix [outputs, inputs] as PyTorch has it, or the vector of a norm."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def read(self, rows: Rows) -> torch.Tensor:
        """Return some rows in float32."""
        ...

    def steps(self, rows: Rows) -> torch.Tensor:
        """Return the distance of two neighbouring numbers of the stored form, for every element of some rows."""
        ...


@dataclass(frozen=True)
class FloatWeight:
    """A weight that is stored as float32, float16, or as the bits of bfloat16 in uint16."""

    array: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def read(self, rows: Rows) -> torch.Tensor:
        part = np.ascontiguousarray(self.array[rows])
        if part.dtype == np.uint16:
            part = (part.astype(np.uint32) << 16).view(np.float32)
        return torch.from_numpy(part.astype(np.float32))

    def steps(self, rows: Rows) -> torch.Tensor:
        relative = {2: 2.0**-10, 4: 2.0**-23}[self.array.dtype.itemsize]
        if self.array.dtype == np.uint16:
            relative = 2.0**-7
        smallest = 2.0**-24 if self.array.dtype == np.float16 else 2.0**-126
        return (self.read(rows).abs() * relative).clamp(min=smallest)


@dataclass(frozen=True)
class BlockWeight:
    """A matrix of 4-bit or 8-bit integers, with a scale and a zero point for each block of a row."""

    packed: np.ndarray  # [rows, bytes]
    scales: np.ndarray  # [rows, blocks]
    zeros: np.ndarray  # [rows, blocks], at least; or [1, 1] for all blocks
    bits: int
    block_size: int
    columns: int
    signed: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.packed), self.columns

    def read(self, rows: Rows) -> torch.Tensor:
        packed = torch.from_numpy(np.array(self.packed[rows], order="C"))  # a copy: a mapped file is read-only
        if self.bits == 4:
            codes = torch.stack([packed & 15, packed >> 4], dim=-1).flatten(1)
            codes = (codes ^ 8).to(torch.int8) - 8 if self.signed else codes
        else:
            codes = packed
        zeros = self.zeros if len(self.zeros) == 1 else self.zeros[rows]
        offsets = torch.from_numpy(np.ascontiguousarray(zeros).astype(np.float32))
        offsets = offsets if offsets.shape[1] == 1 else self._spread(offsets)
        return (codes[:, : self.columns].float() - offsets) * self.steps(rows, absolute=False)

    def steps(self, rows: Rows, absolute: bool = True) -> torch.Tensor:
        scales = self._spread(FloatWeight(self.scales).read(rows))
        return scales.abs() if absolute else scales

    def _spread(self, values: torch.Tensor) -> torch.Tensor:
        """Return the numbers of the blocks as numbers of the columns."""
        blocks = -(-self.columns // self.block_size)
        return values[:, :blocks].repeat_interleave(self.block_size, dim=1)[:, : self.columns]


@dataclass(frozen=True)
class JoinedWeight:
    """Matrices that lie one below the other."""

    parts: Sequence[Weight]

    @property
    def shape(self) -> tuple[int, ...]:
        return sum(part.shape[0] for part in self.parts), *self.parts[0].shape[1:]

    def read(self, rows: Rows) -> torch.Tensor:
        return torch.cat([part.read(piece) for part, piece in self._cut(rows)])

    def steps(self, rows: Rows) -> torch.Tensor:
        return torch.cat([part.steps(piece) for part, piece in self._cut(rows)])

    def _cut(self, rows: Rows) -> list[tuple[Weight, slice]]:
        """Return the parts that have some of the rows, and which of their rows these are."""
        if not isinstance(rows, slice):
            raise TypeError("only an embedding is read by number of row, and it is one matrix")
        cut, first = [], 0
        for part in self.parts:
            start, stop = max(rows.start - first, 0), min(rows.stop - first, part.shape[0])
            if start < stop:
                cut.append((part, slice(start, stop)))
            first += part.shape[0]
        return cut
