"""What a checkpoint is, from its files alone: nothing here loads a weight or runs code of the checkpoint's."""

import json
import math
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from steps.common.errors import StepError

ALLOWED = (
    "*.safetensors",
    "*.json",
    "*.jinja",
    "*.model",  # SentencePiece
    "merges.txt",
    "vocab.txt",
    "LICENSE*",
    "NOTICE*",
    "README.md",
)
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
ADAPTER_CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class Weights:
    """What the safetensors headers say: the number of parameters, their dtype, and the tensors' names and shapes."""

    parameters: int
    dtype: str
    shapes: dict[str, tuple[int, ...]]


def check_files(names: Iterable[str]) -> None:
    """Refuse a checkpoint without safetensors weights, and one with an adapter in it.

    Raises:
        StepError: naming the adapter, or the pickled file that it has instead of safetensors, if any.
    """
    names = sorted(name for name in names if "/" not in name)
    if ADAPTER_CONFIG in names:  # transformers would load the adapter without a word, and the ONNX exporters would not
        raise StepError(
            f"the source holds {ADAPTER_CONFIG}, and so a PEFT adapter: give a folder or repository with the adapter "
            "as the parameter adapter, and one with the model that it was made for, and no adapter, as the source"
        )
    if any(name.endswith(".safetensors") for name in names):
        return
    pickled = [name for name in names if name.endswith(PICKLED)]
    if pickled:
        raise StepError(
            f"{pickled[0]} is pickled, and loading a pickle runs whatever code is in it: "
            "convert the weights to safetensors and give that folder or repository"
        )
    raise StepError("the checkpoint holds no *.safetensors file: expected weights in that format")


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a checkpoint.

    Raises:
        StepError: it is missing or broken.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("not an object")
        return config
    except FileNotFoundError:
        raise StepError(f"{folder} has no config.json: it is not a transformers checkpoint") from None
    except ValueError as error:
        raise StepError(f"config.json is not valid JSON ({error}): fetch or save the checkpoint again") from None


def check_architecture(config: dict[str, Any]) -> None:
    """Refuse a checkpoint that transformers could only load by running the repository's own code.

    Raises:
        StepError: naming the file with that code.
    """
    architecture = (config.get("architectures") or ["none"])[0]
    model_type = config.get("model_type", "none")
    if architecture.endswith("ForCausalLM") and _defines(model_type, architecture):
        return
    code = [str(value).split("--")[-1].split(".")[0] + ".py" for value in (config.get("auto_map") or {}).values()]
    remote = f", and the code in {code[-1]} is never run" if code else ""
    raise StepError(
        f"config.json: architecture {architecture} (model type {model_type!r}) is not a causal language model that "
        f"transformers {version('transformers')} has natively{remote}: use a Phi3ForCausalLM checkpoint "
        "(Phi-3-mini, Phi-3-medium, Phi-3.5-mini, Phi-4-mini)"
    )


def _defines(model_type: str, architecture: str) -> bool:
    """Whether the installed transformers' module of a model type defines a class; read, for importing takes seconds."""
    (package,) = find_spec("transformers").submodule_search_locations
    name = re.sub(r"\W", "_", model_type)
    module = Path(package) / "models" / name / f"modeling_{name}.py"
    return module.is_file() and f"\nclass {architecture}(" in module.read_text(encoding="utf-8")


def read_header(file: Path) -> tuple[int, dict[str, Any]]:
    """Where the data of a safetensors file begins, and tensor -> dtype, shape, data_offsets [begin, end] from there.

    The format: 8 bytes with the header's length N, little-endian; N bytes of JSON; the data
    (https://huggingface.co/docs/safetensors, "Format").

    Raises:
        StepError: the file is truncated or not safetensors.
    """
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > 100 << 20:
                raise ValueError("the header is too long")
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        end = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
        for entry in header.values():
            math.prod(entry["shape"]), entry["dtype"].upper()
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StepError(f"{file.name} is not a safetensors file ({error}): fetch or save it again") from None
    if end != file.stat().st_size:
        raise StepError(
            f"{file.name} has {file.stat().st_size} bytes and its header says {end}: fetch or save it again"
        )
    return 8 + length, header


def read_weights(folder: Path) -> Weights:
    """Read the headers of every safetensors file of a folder and check them against the files' sizes.

    Raises:
        StepError: a file is truncated or not safetensors, named, or one that the index lists is missing.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    sizes: dict[str, int] = {}
    for file in sorted(folder.glob("*.safetensors")):
        for name, entry in read_header(file)[1].items():
            shapes[name] = tuple(entry["shape"])
            dtype = entry["dtype"]
            sizes[dtype] = sizes.get(dtype, 0) + math.prod(entry["shape"])
    _check_index(folder, shapes)
    names = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    common = max(sizes, key=sizes.get, default="none")
    return Weights(sum(sizes.values()), names.get(common, common), shapes)


def _check_index(folder: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Every shard and tensor that model.safetensors.index.json lists must be there."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return
    try:
        listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (ValueError, KeyError, TypeError) as error:
        raise StepError(f"{index.name} is damaged ({error!r}): fetch or save the checkpoint again") from None
    for tensor, file in listed.items():
        if tensor not in shapes:
            what = f"has no {tensor}" if (folder / file).is_file() else "is missing"
            raise StepError(f"{file}, which {index.name} lists, {what}: fetch or save the checkpoint again")


def architecture_facts(config: dict[str, Any], weights: Weights) -> dict[str, Any]:
    """What an engineer asks about a model first.

    Raises:
        StepError: config.json contradicts the weights.
    """
    heads = config.get("num_attention_heads")
    hidden, vocab = config.get("hidden_size"), config.get("vocab_size")
    embedding = weights.shapes.get("model.embed_tokens.weight")
    if embedding and embedding != (vocab, hidden):
        raise StepError(
            f"config.json says vocab_size {vocab} and hidden_size {hidden}, but model.embed_tokens.weight is "
            f"{embedding[0]} x {embedding[1]}: they are of different models"
        )
    layers = {name.split(".")[2] for name in weights.shapes if name.startswith("model.layers.")}
    if layers and len(layers) != config.get("num_hidden_layers"):
        raise StepError(
            f"config.json says num_hidden_layers {config.get('num_hidden_layers')}, but the weights hold "
            f"{len(layers)}: they are of different models"
        )
    if config["architectures"][0] == "Phi3ForCausalLM":
        _check_phi3(config, weights)
    scaling = config.get("rope_scaling") or {}
    return {
        "architecture": config["architectures"][0],
        "parameters": weights.parameters,
        "dtype": weights.dtype,
        "context_length": config.get("max_position_embeddings"),
        "layers": config.get("num_hidden_layers"),
        "hidden_size": hidden,
        "vocabulary": vocab,
        "attention_heads": heads,
        "kv_heads": config.get("num_key_value_heads", heads),
        "rope": scaling.get("rope_type") or scaling.get("type") or "default",
        "partial_rotary_factor": config.get("partial_rotary_factor", 1.0),
        "tied_embeddings": bool(config.get("tie_word_embeddings", False)),
    }


def _check_phi3(config: dict[str, Any], weights: Weights) -> None:
    """The matrices of every layer must be those of the config: attention and MLP are each packed into one.

    Raises:
        StepError: naming the first that is missing or of another shape.
    """
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    size = config.get("head_dim") or hidden // heads
    packed = (heads + 2 * (config.get("num_key_value_heads") or heads)) * size
    layer = {
        "self_attn.qkv_proj": (packed, hidden),
        "self_attn.o_proj": (hidden, heads * size),
        "mlp.gate_up_proj": (2 * inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    expected = {
        f"model.layers.{number}.{name}.weight": shape
        for number in range(config["num_hidden_layers"])
        for name, shape in layer.items()
    }
    if not config.get("tie_word_embeddings"):
        expected["lm_head.weight"] = (config["vocab_size"], hidden)
    for name, shape in expected.items():
        found = weights.shapes.get(name)
        if found != shape:
            raise StepError(
                f"config.json asks for {name} of {shape[0]} x {shape[1]}, and the weights have "
                f"{' x '.join(map(str, found)) if found else 'none'}: they are of different models"
            )
