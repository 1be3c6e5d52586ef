"""Variants of the shipped checkpoint with other weights: shards, quantised, wrapped, tied, of other models."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from steps.checkpoint.headers import INDEX, SINGLE
from tests.checkpoints.tiny import drop, edit_json, set_config
from tests.checkpoints.weights import Values, change_tensors, read_tensors, write_shards, write_tensors, zeros

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
_HEADS, _KV_HEADS, _HEAD_SIZE = 6, 3, 32  # of the shipped checkpoint


def _renamed(folder: Path, rename: Callable[[str], str]) -> None:
    tensors = read_tensors(folder / SINGLE)
    write_tensors(folder / SINGLE, {rename(name): values for name, values in tensors.items()})


def llama(folder: Path) -> None:
    """What tools that "llamafy" Phi-3 write: Q, K, V and the halves of the MLP as matrices of their own."""
    tensors: dict[str, Values] = {}
    query, key = _HEADS * _HEAD_SIZE, _KV_HEADS * _HEAD_SIZE
    for name, values in read_tensors(folder / SINGLE).items():
        rows = values.shape[0]
        cuts = {"qkv_proj": (0, query, query + key, rows), "gate_up_proj": (0, rows // 2, rows)}
        parts = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
        packed = next((part for part in parts if part in name), None)
        if packed is None:
            tensors[name] = values
            continue
        for part, first, last in zip(parts[packed], cuts[packed], cuts[packed][1:], strict=False):
            tensors[name.replace(packed, part)] = values.rows(first, last)
    write_tensors(folder / SINGLE, tensors)
    fields = ("partial_rotary_factor", "original_max_position_embeddings", "embd_pdrop", "resid_pdrop")
    set_config(folder, fields, architectures=["LlamaForCausalLM"], model_type="llama", head_dim=_HEAD_SIZE)


def shards(folder: Path) -> None:
    write_shards(folder, read_tensors(folder / SINGLE), 3)
    (folder / SINGLE).unlink()


def stale_shards(folder: Path) -> None:
    """The shards of an earlier save lie beside the new ones, which alone the index lists."""
    tensors = read_tensors(folder / SINGLE)
    write_shards(folder, {name: zeros("BF16", values.shape, 2) for name, values in tensors.items()}, 3)
    write_shards(folder, tensors, 2)
    (folder / SINGLE).unlink()


def file_beside_index(folder: Path) -> None:
    """transformers 4.57 would read model.safetensors, which an earlier save has left."""
    tensors = read_tensors(folder / SINGLE)
    write_shards(folder, tensors, 2)
    write_tensors(folder / SINGLE, {name: zeros("BF16", values.shape, 2) for name, values in tensors.items()})


def index_outside(folder: Path) -> None:
    write_shards(folder, read_tensors(folder / SINGLE), 2)
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"][HEAD] = "../other/model-00002-of-00002.safetensors"
    (folder / INDEX).write_text(json.dumps(index))


def fp8(folder: Path) -> None:
    """What neuralmagic and RedHatAI publish of Phi-3: compressed-tensors in FP8."""
    for name, values in read_tensors(folder / SINGLE).items():
        if "proj" in name:
            scale = {f"{name.removesuffix('.weight')}.weight_scale": zeros("BF16", (1,), 2)}
            change_tensors(folder, {name: zeros("F8_E4M3", values.shape, 1), **scale})
    set_config(folder, quantization_config={"quant_method": "compressed-tensors", "format": "float-quantized"})


def fp8_without_config(folder: Path) -> None:
    fp8(folder)
    drop(folder / "config.json", "quantization_config")


def bytes_without_config(folder: Path) -> None:
    change_tensors(folder, {"model.layers.0.mlp.down_proj.weight": zeros("F8_E4M3", (192, 416), 1)})


def bitsandbytes(folder: Path) -> None:
    name = "model.layers.0.mlp.down_proj.weight"
    change_tensors(folder, {name: zeros("U8", (192 * 416 // 2, 1), 1), f"{name}.absmax": zeros("F32", (1248,), 4)})
    set_config(folder, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})


def bitsandbytes_without_config(folder: Path) -> None:
    bitsandbytes(folder)
    drop(folder / "config.json", "quantization_config")


def gptq(folder: Path) -> None:
    part = "model.layers.0.mlp.down_proj"
    change_tensors(folder, {f"{part}.weight": None, f"{part}.qweight": zeros("I32", (52, 192), 4)})
    set_config(folder, quantization_config={"quant_method": "gptq", "bits": 4, "group_size": 128})


def gptq_without_config(folder: Path) -> None:
    gptq(folder)
    drop(folder / "config.json", "quantization_config")


def awq(folder: Path) -> None:
    set_config(folder, quantization_config={"quant_method": "awq", "modules_to_not_convert": ["lm_head"]})


def tied_with_equal_head(folder: Path) -> None:
    """unsloth and LLaMA-Factory save the shared matrix under both names."""
    change_tensors(folder, {EMBEDDING: read_tensors(folder / SINGLE)[HEAD]})
    set_config(folder, tie_word_embeddings=True)


def tied_with_another_head(folder: Path) -> None:
    set_config(folder, tie_word_embeddings=True)


def compiled(folder: Path) -> None:
    _renamed(folder, lambda name: f"_orig_mod.{name}")


def wrapped_by_peft(folder: Path) -> None:
    _renamed(folder, lambda name: f"base_model.model.{name.replace('qkv_proj', 'qkv_proj.base_layer')}")


def data_parallel(folder: Path) -> None:
    _renamed(folder, lambda name: f"module.{name}")


def _other_model(folder: Path, architecture: str, model_type: str, tensors: dict[str, Values], **fields: Any) -> None:
    write_tensors(folder / SINGLE, tensors)
    set_config(folder, ("original_max_position_embeddings",), architectures=[architecture], model_type=model_type)
    edit_json(folder / "config.json", hidden_size=64, num_hidden_layers=1, num_attention_heads=4, **fields)


def phi2(folder: Path) -> None:
    """phi-2's architecture and names, as far as fetch_model reads them."""
    tensors = {EMBEDDING: zeros("BF16", (768, 64), 2), "model.layers.0.mlp.fc1.weight": zeros("BF16", (128, 64), 2)}
    _other_model(folder, "PhiForCausalLM", "phi", tensors, intermediate_size=128, num_key_value_heads=4)


def phimoe(folder: Path) -> None:
    """Phi-3.5-MoE's architecture, as its repository spells it, and names."""
    expert = "model.layers.0.block_sparse_moe.experts.0.w1.weight"
    tensors = {EMBEDDING: zeros("BF16", (768, 64), 2), expert: zeros("BF16", (64, 64), 2)}
    _other_model(folder, "PhiMoEForCausalLM", "phimoe", tensors, intermediate_size=64, num_key_value_heads=2)
