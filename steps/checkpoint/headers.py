"""Read config.json and the headers of safetensors files. No weight is loaded and no code of a checkpoint is run."""

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steps.common.errors import StepError

INDEX = "model.safetensors.index.json"
_LONGEST_HEADER = 100 << 20  # bytes; the limit of the safetensors library
_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}  # safetensors' name -> torch's name


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


def read_config(folder: Path) -> dict[str, Any]:
    """Return the content of a checkpoint's config.json.

    Raises:
        StepError: the file is missing or damaged.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StepError(f"{folder} has no config.json: it is not a transformers checkpoint") from None
    except ValueError as error:
        raise StepError(f"config.json is not valid JSON ({error}): fetch or save the checkpoint again") from None
    if not isinstance(config, dict):
        raise StepError("config.json is not valid JSON (not an object): fetch or save the checkpoint again")
    return config


def read_eos(folder: Path) -> int | list[int] | None:
    """Return the ID or IDs of the end tokens (EOS), as generation_config.json or else config.json states them.

    Returns:
        None if neither file states them.

    Raises:
        StepError: a file is damaged.
    """
    for name in ("generation_config.json", "config.json"):
        try:
            eos = json.loads((folder / name).read_text(encoding="utf-8")).get("eos_token_id")
        except FileNotFoundError:
            continue
        except (ValueError, AttributeError) as error:
            raise StepError(f"{name} is not valid JSON ({error}): fetch or save the checkpoint again") from None
        if eos is not None:
            return eos
    return None


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
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StepError(f"{file.name} is not a safetensors file ({error}): fetch or save it again") from None
    start = 8 + length
    expected = start + max((tensor.end for tensor in tensors.values()), default=0)
    actual = file.stat().st_size
    if actual != expected:
        raise StepError(f"{file.name} has {actual} bytes and its header says {expected}: fetch or save it again")
    return Header(start, tensors)


def _parse_tensor(entry: dict[str, Any]) -> Tensor:
    begin, end = entry["data_offsets"]
    return Tensor(entry["dtype"].upper(), tuple(int(size) for size in entry["shape"]), int(begin), int(end))


def read_weights(folder: Path) -> Weights:
    """Read the header of every safetensors file in a folder.

    Raises:
        StepError: a file is truncated, is not a safetensors file, or is listed in the index and missing.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    counts: dict[str, int] = {}  # dtype -> number of values
    for file in sorted(folder.glob("*.safetensors")):
        for name, tensor in read_header(file).tensors.items():
            shapes[name] = tensor.shape
            counts[tensor.dtype] = counts.get(tensor.dtype, 0) + math.prod(tensor.shape)
    _check_index(folder, shapes)
    dtype = max(counts, key=lambda name: counts[name], default="none")
    return Weights(sum(counts.values()), _DTYPES.get(dtype, dtype), shapes)


def _check_index(folder: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Raise StepError if the index lists a file or a tensor that is missing."""
    index = folder / INDEX
    if not index.is_file():
        return
    try:
        tensors = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    except (ValueError, KeyError, TypeError) as error:
        raise StepError(f"{INDEX} is damaged ({error!r}): fetch or save the checkpoint again") from None
    for tensor, file in tensors.items():
        if tensor not in shapes:
            problem = f"has no {tensor}" if (folder / file).is_file() else "is missing"
            raise StepError(f"{file}, which {INDEX} lists, {problem}: fetch or save the checkpoint again")
