"""Change the weights of a checkpoint in tests, as bytes: no dtype is converted and torch is not needed."""

import json
import math
import struct
from dataclasses import dataclass, replace
from pathlib import Path

from steps.checkpoint.headers import INDEX, SINGLE, read_header


@dataclass(frozen=True)
class Values:
    """A tensor of a safetensors file: its dtype as safetensors names it, its shape, its bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    def rows(self, first: int, last: int) -> "Values":
        """Return the rows [first, last) of a matrix."""
        row = len(self.data) // self.shape[0]
        return replace(self, shape=(last - first, *self.shape[1:]), data=self.data[first * row : last * row])


def zeros(dtype: str, shape: tuple[int, ...], size: int) -> Values:
    """Return a tensor of zeros whose values have `size` bytes."""
    return Values(dtype, shape, bytes(math.prod(shape) * size))


def read_tensors(file: Path) -> dict[str, Values]:
    """Return every tensor of a safetensors file by name."""
    header, content = read_header(file), file.read_bytes()
    return {
        name: Values(
            tensor.dtype, tensor.shape, content[header.data_start + tensor.begin : header.data_start + tensor.end]
        )
        for name, tensor in header.tensors.items()
    }


def write_tensors(file: Path, tensors: dict[str, Values]) -> None:
    """Write a safetensors file. The format: https://huggingface.co/docs/safetensors, section "Format"."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for name, values in tensors.items():
        end = begin + len(values.data)
        entries[name] = {"dtype": values.dtype, "shape": values.shape, "data_offsets": [begin, end]}
        begin = end
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    file.write_bytes(struct.pack("<Q", len(header)) + header + b"".join(values.data for values in tensors.values()))


def write_shards(folder: Path, tensors: dict[str, Values], count: int) -> None:
    """Write tensors in `count` files and an index, as save_pretrained names them."""
    weight_map: dict[str, str] = {}
    for number in range(count):
        name = f"model-{number + 1:05d}-of-{count:05d}.safetensors"
        names = sorted(tensors)[number::count]
        write_tensors(folder / name, {key: tensors[key] for key in names})
        weight_map |= dict.fromkeys(names, name)
    total = sum(len(values.data) for values in tensors.values())
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}))


def change_tensors(folder: Path, changes: dict[str, Values | None]) -> None:
    """Replace, add or (None) delete tensors of model.safetensors."""
    tensors = read_tensors(folder / SINGLE) | changes
    write_tensors(folder / SINGLE, {name: values for name, values in tensors.items() if values is not None})
