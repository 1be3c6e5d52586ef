"""Read config.json and the headers of safetensors files. No weight is loaded and no code of a checkpoint is run."""

import json
import math
import struct
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steps.checkpoint.json_files import read_json_object
from steps.common.errors import StepError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_AGAIN = "fetch or save the checkpoint again"
_LONGEST_HEADER = 100 << 20  # bytes; the limit of the safetensors library
_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
}  # safetensors' name -> torch's name
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}  # of one value


@dataclass(frozen=True)
class Tensor:
    """One tensor of a safetensors file. Its bytes are data[begin:end]."""

    dtype: str  # as safetensors names it, such as BF16
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """The header of a safetensors file: the offset of its data in bytes, and its tensors by name."""

    data_start: int
    tensors: dict[str, Tensor]


@dataclass(frozen=True)
class Weights:
    """All weights of a checkpoint, as the headers describe them."""

    parameters: int  # the number of values
    dtype: str  # torch's name of the dtype that most values have
    shapes: dict[str, tuple[int, ...]]  # tensor name -> shape
    dtypes: dict[str, str]  # tensor name -> dtype, as safetensors names it

    @property
    def embedding_rows(self) -> int:
        """The number of rows of the token embedding; 0 if the model has none under its usual name."""
        return self.shapes.get("model.embed_tokens.weight", (0,))[0]


def read_config(folder: Path) -> dict[str, Any]:
    """Return the content of a checkpoint's config.json.

    Raises:
        StepError: the file is missing or damaged.
    """
    try:
        return read_json_object(folder / "config.json")
    except FileNotFoundError:
        raise StepError(f"{folder} has no config.json: it is not a transformers checkpoint") from None


def read_header(file: Path) -> Header:
    """Return the header of a safetensors file.

    The format: 8 bytes with the length N of the header, little-endian; N bytes of JSON; the data
    (https://huggingface.co/docs/safetensors, section "Format").

    Raises:
        StepError: the file is truncated or is not a safetensors file.
    """
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > _LONGEST_HEADER:
                raise ValueError("the header is too long")
            entries = json.loads(stream.read(length))
        entries.pop("__metadata__", None)
        tensors = {name: _parse_tensor(entry) for name, entry in entries.items()}
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise StepError(f"{file.name} is not a safetensors file ({error}): fetch or save it again") from None
    start = 8 + length
    expected = start + max((tensor.end for tensor in tensors.values()), default=0)
    actual = file.stat().st_size
    if actual != expected:
        raise StepError(f"{file.name} has {actual} bytes and its header says {expected}: fetch or save it again")
    return Header(start, tensors)


def _parse_tensor(entry: dict[str, Any]) -> Tensor:
    begin, end = (int(offset) for offset in entry["data_offsets"])
    dtype, shape = entry["dtype"].upper(), tuple(int(size) for size in entry["shape"])
    if begin < 0 or dtype in _BYTES and end - begin != math.prod(shape) * _BYTES[dtype]:
        raise ValueError(f"a tensor of {dtype} and shape {list(shape)!r:.80} has the bytes {begin} to {end}")
    return Tensor(dtype, shape, begin, end)


def weight_files(folder: Path) -> tuple[Path, ...]:
    """Return the files that hold the weights of the checkpoint in a folder, as `weight_names` does."""
    names = {path.name for path in folder.iterdir() if path.is_file()}
    return tuple(folder / name for name in weight_names(folder, names))


def weight_names(folder: Path, names: Collection[str]) -> tuple[str, ...]:
    """Return the names of the files that hold the weights: those that the index lists, else model.safetensors.

    Any other safetensors file is ignored. An earlier save may have left it in the folder.

    Args:
        folder: holds the index, if there is one.
        names: the checkpoint's files. They need not be in the folder yet.

    Raises:
        StepError: there is neither, or the index is damaged or lists a file that is missing.
    """
    if INDEX in names:
        files = sorted(set(_weight_map(folder / INDEX).values()))
        if missing := [file for file in files if file not in names]:
            raise StepError(f"{missing[0]}, which {INDEX} lists, is missing: {_AGAIN}")
        return tuple(files)
    if SINGLE in names:
        return (SINGLE,)
    others = sorted(name for name in names if name.endswith(".safetensors"))
    raise StepError(
        f"the checkpoint has {', '.join(others[:3]) or 'no weights'}, and neither {SINGLE} nor {INDEX}: save it again "
        "with save_pretrained"
    )


def _weight_map(index: Path) -> dict[str, str]:
    """Return tensor -> file of the index. Every file is in the index's own folder.

    Raises:
        StepError: the index is damaged, or names a path outside the folder.
    """
    files = read_json_object(index).get("weight_map")
    if not isinstance(files, dict) or not files:
        raise StepError(f"{INDEX} is damaged (weight_map is {files!r:.80}): {_AGAIN}")
    for tensor, file in files.items():
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
            raise StepError(f"{INDEX} puts {tensor} into {file!r:.80}; expected a safetensors file beside it: {_AGAIN}")
    return files


def read_weights(folder: Path) -> Weights:
    """Read the headers of a checkpoint's weights.

    Raises:
        StepError: a file is truncated or is not a safetensors file, or the index does not fit the files.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: dict[str, str] = {}
    counts: dict[str, int] = {}  # dtype -> number of values
    for file in weight_files(folder):
        for name, tensor in read_header(file).tensors.items():
            if name in shapes:
                raise StepError(f"{name} is in two files of weights, {file.name} is one: save the checkpoint again")
            shapes[name], dtypes[name] = tensor.shape, tensor.dtype
            counts[tensor.dtype] = counts.get(tensor.dtype, 0) + math.prod(tensor.shape)
    if (folder / INDEX).is_file():
        for name, listed in _weight_map(folder / INDEX).items():
            if name not in shapes:
                raise StepError(f"{listed}, which {INDEX} lists, has no {name}: {_AGAIN}")
    dtype = max(counts, key=lambda name: counts[name], default="none")
    return Weights(sum(counts.values()), _DTYPES.get(dtype, dtype), shapes, dtypes)
