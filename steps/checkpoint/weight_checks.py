"""Refuse weights that can't be read: quantised ones, and those whose names or head contradict config.json."""

import re
from pathlib import Path
from typing import Any

from steps.checkpoint.headers import Weights, read_header, weight_files
from steps.common.errors import StepError

_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"
_FLOATS = ("F64", "F32", "F16", "BF16")
_BLOCK = 16 << 20  # bytes compared at a time
# What training tools leave in the names of tensors when the wrapped model is saved, and who wraps it.
_WRAPPED = {
    r"(^|\.)_orig_mod\.": "torch.compile",
    r"^base_model\.model\.|\.base_layer\.|\.lora_[AB]\.|\.modules_to_save\.": "peft",
    r"^module\.": "DataParallel or DeepSpeed",
    r"(^|\.)(_fsdp_wrapped_module|_checkpoint_wrapped_module)\.": "FSDP",
}
# What quantising tools add to the names of tensors.
_QUANTISED = {
    "weight_scale": "FP8 or compressed-tensors",
    "weight_scale_inv": "FP8",
    "weight_packed": "compressed-tensors",
    "qweight": "GPTQ or AWQ",
    "absmax": "bitsandbytes",
    "SCB": "bitsandbytes",
    "quant_state.bitsandbytes__nf4": "bitsandbytes",
    "quant_state.bitsandbytes__fp4": "bitsandbytes",
}
_UNQUANTISED = "give the unquantised checkpoint, in bfloat16, float16 or float32"


def check_not_quantised(config: dict[str, Any]) -> None:
    """Raise StepError if config.json says that the weights are quantised."""
    for field in ("quantization_config", "compression_config"):
        if quantisation := config.get(field):
            method = quantisation.get("quant_method") if isinstance(quantisation, dict) else None
            raise StepError(
                f"the checkpoint is quantised by {method or 'an unknown method'} (config.json, {field}): {_UNQUANTISED}"
            )


def check_weights(folder: Path, config: dict[str, Any], weights: Weights) -> None:
    """Raise StepError if the weights are quantised, have names of a wrapper, or have a head that config.json denies."""
    _check_names(weights)
    _check_dtypes(weights)
    if config.get("tie_word_embeddings") and _HEAD in weights.shapes:
        _check_tied_head(folder, weights)


def _check_names(weights: Weights) -> None:
    for name in weights.shapes:
        tool = next((tool for part, tool in _WRAPPED.items() if re.search(part, name)), None)
        if tool:
            raise StepError(
                f"the weights hold {name}, a name that {tool} gives a wrapped model: unwrap the model before "
                "save_pretrained (model._orig_mod, model.module, or peft's merge_and_unload)"
            )


def _check_dtypes(weights: Weights) -> None:
    """Raise StepError for a tensor that only a quantised checkpoint has. Integers outside of weights are buffers."""
    for name in weights.shapes:
        part = next((part for part in _QUANTISED if name.endswith(f".{part}")), None)
        if part:
            raise StepError(
                f"the checkpoint is quantised by {_QUANTISED[part]} (the weights hold {name}): {_UNQUANTISED}"
            )
    for name, dtype in weights.dtypes.items():
        if dtype not in _FLOATS and name.endswith((".weight", ".bias")):
            raise StepError(f"the checkpoint is quantised ({name} has the dtype {dtype}): {_UNQUANTISED}")


def _check_tied_head(folder: Path, weights: Weights) -> None:
    """Raise StepError if config.json ties the head to the embedding, and the file has another head.

    Some tools save a tied matrix under both names. Then the two are equal.
    """
    if weights.shapes.get(_EMBEDDING) == weights.shapes[_HEAD] and _equal(folder, _EMBEDDING, _HEAD):
        return
    raise StepError(
        f"config.json has tie_word_embeddings true, and the weights hold a {_HEAD} that differs from {_EMBEDDING}: set "
        "tie_word_embeddings to false in config.json if the head was trained, else save the checkpoint again"
    )


def _equal(folder: Path, first: str, second: str) -> bool:
    """Return whether two tensors have the same bytes."""
    places = []
    for file in weight_files(folder):
        header = read_header(file)
        for name in (first, second):
            if tensor := header.tensors.get(name):
                places.append((file, header.data_start + tensor.begin, tensor.end - tensor.begin))
    if len(places) != 2 or places[0][2] != places[1][2]:
        return False
    (file, start, size), (other_file, other_start, _) = places
    with file.open("rb") as stream, other_file.open("rb") as other:
        stream.seek(start)
        other.seek(other_start)
        while size > 0:
            length = min(size, _BLOCK)
            if stream.read(length) != other.read(length):
                return False
            size -= length
    return True
