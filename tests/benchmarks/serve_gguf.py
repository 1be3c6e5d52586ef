#!/usr/bin/env python3
"""Write a Phi-3 checkpoint without LongRoPE as an fp16 GGUF for llama.cpp.

Usage: python serve_gguf.py CHECKPOINT OUT.gguf

The tokens get invented names, because the benchmark sends and counts tokens, and no text. Needs the package gguf, which
is also in llama.cpp's own folder gguf-py: put that on PYTHONPATH.
"""

import json
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors import safe_open

_LAYER = {  # llama.cpp's name -> transformers' name
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_up": "mlp.gate_up_proj",
    "ffn_down": "mlp.down_proj",
}


def write_gguf(checkpoint: Path, out: Path) -> None:
    """Write the file."""
    config = json.loads((checkpoint / "config.json").read_text())
    writer = gguf.GGUFWriter(str(out), "phi3")
    _add_config(writer, config)
    with safe_open(checkpoint / "model.safetensors", "pt") as tensors:
        for target, source in _names(config):
            if source in tensors.keys():  # noqa: SIM118 (the file is no dictionary)
                one_dimension = source.endswith("norm.weight")
                dtype = torch.float32 if one_dimension else torch.float16
                writer.add_tensor(target, np.ascontiguousarray(tensors.get_tensor(source).to(dtype).numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _names(config: dict[str, Any]) -> list[tuple[str, str]]:
    names = [("token_embd.weight", "model.embed_tokens.weight"), ("output_norm.weight", "model.norm.weight")]
    if not config.get("tie_word_embeddings"):
        names.append(("output.weight", "lm_head.weight"))
    for layer in range(config["num_hidden_layers"]):
        for target, source in _LAYER.items():
            names.append((f"blk.{layer}.{target}.weight", f"model.layers.{layer}.{source}.weight"))
    return names


def _add_config(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_rope_scaling_orig_ctx_len(config["original_max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config["hidden_size"] // config["num_attention_heads"])
    writer.add_rope_freq_base(config.get("rope_theta", 10000.0))
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([f"<t{token}>" for token in range(config["vocab_size"])])
    writer.add_token_types([gguf.TokenType.NORMAL] * config["vocab_size"])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(3)


if __name__ == "__main__":
    write_gguf(Path(sys.argv[1]), Path(sys.argv[2]))
