"""Tensors of the ONNX graph whose data lies in a file.

A CastTensor's data is in the checkpoint. When it is written, an ExternalTensor takes its place: its data is in the ONNX
data file.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

import onnx_ir as ir
import torch
from onnx_ir.tensor_adapters import TorchTensor, to_torch_dtype

_COLUMNS = 256  # a piece has a multiple of this many rows or columns, so no 4-bit byte is cut in two


@runtime_checkable
class Writable(Protocol):
    """What is used of onnx_ir's tensors. Their common class is private, and its public protocol lacks `tofile`."""

    @property
    def dtype(self) -> ir.DataType: ...

    @property
    def shape(self) -> ir.Shape: ...

    def tofile(self, file: BinaryIO, /) -> None: ...


class CastTensor(ir.LazyTensor):
    """A tensor of the checkpoint that is cast to another dtype each time it is read. The result is not kept."""

    def __init__(self, source: torch.Tensor, dtype: ir.DataType, name: str) -> None:
        super().__init__(self._whole, dtype, ir.Shape(source.shape), name=name)
        self.source = source.detach()

    def _whole(self) -> TorchTensor:
        return TorchTensor(self.cast(0, 0, len(self.source)), name=self.name)

    @property
    def source_bytes(self) -> int:
        """The size of the tensor in the checkpoint, in bytes."""
        return self.source.numel() * self.source.element_size()

    def cast(self, axis: int, start: int, stop: int) -> torch.Tensor:
        """Return a copy of the part from `start` to before `stop` along an axis, in this tensor's dtype."""
        return self.source.narrow(axis, start, stop - start).to(to_torch_dtype(self.dtype)).contiguous()

    def spans(self, axis: int, size: int) -> Iterator[tuple[int, int]]:
        """Yield the start and stop of each piece along an axis. A piece has about `size` bytes as float32."""
        length = self.source.shape[axis]
        step = max(_COLUMNS, size // 4 * length // self.source.numel() // _COLUMNS * _COLUMNS)
        for start in range(0, length, step):
            yield start, min(start + step, length)


def constant(value: ir.Value) -> Writable:
    """Return the data of a value that is a constant. Raise TypeError if it has none that can be written to a file."""
    if not isinstance(value.const_value, Writable):
        raise TypeError(f"{value.name} has no data that can be written")
    return value.const_value


def joined_rows(tensors: Sequence[torch.Tensor]) -> torch.Tensor | None:
    """Return blocks of rows that lie one behind the other in memory as one view; None if they lie elsewhere."""
    first = tensors[0]
    offset = first.storage_offset()
    for tensor in tensors:
        same = tensor.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        if not same or tensor.storage_offset() != offset or tensor.stride() != (first.shape[1], 1):
            return None
        offset += tensor.numel()
    return first.as_strided((sum(len(tensor) for tensor in tensors), first.shape[1]), (first.shape[1], 1))


def write(parts: Sequence[Writable], name: str, stream: BinaryIO) -> ir.ExternalTensor:
    """Write the parts of a tensor, one after the other along its first axis, and return the tensor in the file."""
    offset = stream.tell()
    for part in parts:
        part.tofile(stream)
    shapes = [part.shape.numpy() for part in parts]
    return in_file(stream, offset, name, parts[0].dtype, (sum(shape[0] for shape in shapes), *shapes[0][1:]))


def in_file(stream: BinaryIO, offset: int, name: str, dtype: ir.DataType, shape: Sequence[int]) -> ir.ExternalTensor:
    """Return the tensor that was written to a file from `offset` up to the present position."""
    stream.flush()
    path = Path(stream.name)
    length = stream.tell() - offset
    return ir.ExternalTensor(path.name, offset, length, dtype, shape=ir.Shape(shape), name=name, base_dir=path.parent)
