"""Checkpoints as today's tools save them: copies of the shipped one with one change each, made without torch."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from steps.checkpoint.headers import INDEX, SINGLE
from tests.checkout import TINY
from tests.checkpoints.tiny import edit_json
from tests.checkpoints.weights import Values, change_tensors, read_tensors, write_shards, write_tensors, zeros

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
_HEADS, _KV_HEADS, _HEAD_SIZE = 6, 3, 32  # of the shipped checkpoint
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")

_BUILDERS: dict[str, Callable[[Path], object]] = {}


def make_variant(folder: Path, name: str) -> Path:
    """Copy the shipped checkpoint to `folder`, change it as the variant of this name, and return the folder."""
    shutil.copytree(TINY, folder)
    _BUILDERS[name](folder)
    return folder


def _variant(build: Callable[[Path], object]) -> Callable[[Path], object]:
    _BUILDERS[build.__name__] = build
    return build


def drop(file: Path, *fields: str) -> None:
    """Delete fields of a JSON file that holds an object."""
    content = json.loads(file.read_text())
    file.write_text(json.dumps({key: value for key, value in content.items() if key not in fields}))


def _set_config(folder: Path, without: tuple[str, ...] = (), **fields: Any) -> None:
    drop(folder / "config.json", *without)
    edit_json(folder / "config.json", **fields)


def _renamed(folder: Path, rename: Callable[[str], str]) -> None:
    tensors = read_tensors(folder / SINGLE)
    write_tensors(folder / SINGLE, {rename(name): values for name, values in tensors.items()})


@_variant
def transformers5_config(folder: Path) -> None:
    rope = {"rope_theta": 10000.0, "rope_type": "default", "partial_rotary_factor": 1.0}
    old = ("rope_theta", "rope_scaling", "partial_rotary_factor")
    _set_config(folder, old, rope_parameters=rope, transformers_version="5.24.0")


@_variant
def transformers5_tokenizer(folder: Path) -> None:
    drop(folder / "tokenizer_config.json", "added_tokens_decoder")
    changes = {"tokenizer_class": "TokenizersBackend", "backend": "tokenizers", "extra_special_tokens": ["<|user|>"]}
    edit_json(folder / "tokenizer_config.json", **changes)
    (folder / "special_tokens_map.json").unlink()


@_variant
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
    _set_config(folder, fields, architectures=["LlamaForCausalLM"], model_type="llama", head_dim=_HEAD_SIZE)


@_variant
def shards(folder: Path) -> None:
    write_shards(folder, read_tensors(folder / SINGLE), 3)
    (folder / SINGLE).unlink()


@_variant
def stale_shards(folder: Path) -> None:
    """The shards of an earlier save lie beside the new ones, which alone the index lists."""
    tensors = read_tensors(folder / SINGLE)
    write_shards(folder, {name: zeros("BF16", values.shape, 2) for name, values in tensors.items()}, 3)
    write_shards(folder, tensors, 2)
    (folder / SINGLE).unlink()


@_variant
def file_beside_index(folder: Path) -> None:
    """transformers 4.57 would read model.safetensors, which an earlier save has left."""
    tensors = read_tensors(folder / SINGLE)
    write_shards(folder, tensors, 2)
    write_tensors(folder / SINGLE, {name: zeros("BF16", values.shape, 2) for name, values in tensors.items()})


@_variant
def index_outside(folder: Path) -> None:
    write_shards(folder, read_tensors(folder / SINGLE), 2)
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"][HEAD] = "../other/model-00002-of-00002.safetensors"
    (folder / INDEX).write_text(json.dumps(index))


@_variant
def fp8(folder: Path) -> None:
    """What neuralmagic and RedHatAI publish of Phi-3: compressed-tensors in FP8."""
    for name, values in read_tensors(folder / SINGLE).items():
        if "proj" in name:
            scale = {f"{name.removesuffix('.weight')}.weight_scale": zeros("BF16", (1,), 2)}
            change_tensors(folder, {name: zeros("F8_E4M3", values.shape, 1), **scale})
    _set_config(folder, quantization_config={"quant_method": "compressed-tensors", "format": "float-quantized"})


@_variant
def fp8_without_config(folder: Path) -> None:
    fp8(folder)
    drop(folder / "config.json", "quantization_config")


@_variant
def bytes_without_config(folder: Path) -> None:
    change_tensors(folder, {"model.layers.0.mlp.down_proj.weight": zeros("F8_E4M3", (192, 416), 1)})


@_variant
def bitsandbytes(folder: Path) -> None:
    name = "model.layers.0.mlp.down_proj.weight"
    change_tensors(folder, {name: zeros("U8", (192 * 416 // 2, 1), 1), f"{name}.absmax": zeros("F32", (1248,), 4)})
    _set_config(folder, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})


@_variant
def bitsandbytes_without_config(folder: Path) -> None:
    bitsandbytes(folder)
    drop(folder / "config.json", "quantization_config")


@_variant
def gptq(folder: Path) -> None:
    part = "model.layers.0.mlp.down_proj"
    change_tensors(folder, {f"{part}.weight": None, f"{part}.qweight": zeros("I32", (52, 192), 4)})
    _set_config(folder, quantization_config={"quant_method": "gptq", "bits": 4, "group_size": 128})


@_variant
def gptq_without_config(folder: Path) -> None:
    gptq(folder)
    drop(folder / "config.json", "quantization_config")


@_variant
def awq(folder: Path) -> None:
    _set_config(folder, quantization_config={"quant_method": "awq", "modules_to_not_convert": ["lm_head"]})


@_variant
def tokenizer_knows_the_end(folder: Path) -> None:
    """TRL's usual setup: the tokenizer's end token is <|end|>; config.json still has the base model's."""
    (folder / "generation_config.json").unlink()
    edit_json(folder / "tokenizer_config.json", eos_token="<|end|>")


@_variant
def no_generation_config(folder: Path) -> None:
    (folder / "generation_config.json").unlink()


@_variant
def no_end_token(folder: Path) -> None:
    (folder / "generation_config.json").unlink()
    (folder / "chat_template.jinja").unlink()
    drop(folder / "config.json", "eos_token_id")
    drop(folder / "tokenizer_config.json", "eos_token")


@_variant
def no_tokenizer(folder: Path) -> None:
    for name in (*_TOKENIZER_FILES, "chat_template.jinja"):
        (folder / name).unlink()


@_variant
def sentencepiece_only(folder: Path) -> None:
    """An older tokenizer that transformers cannot read: the file is damaged."""
    no_tokenizer(folder)
    (folder / "tokenizer.model").write_bytes(b"not a SentencePiece model")


@_variant
def vocabulary_and_merges(folder: Path) -> None:
    """GPT-2's older format, from which transformers builds tokenizer.json."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    merges = ["#version: 0.2", *(" ".join(merge) for merge in tokenizer["model"]["merges"])]
    (folder / "vocab.json").write_text(json.dumps(tokenizer["model"]["vocab"]))
    (folder / "merges.txt").write_text("\n".join(merges) + "\n")
    (folder / "tokenizer.json").unlink()
    edit_json(folder / "tokenizer_config.json", tokenizer_class="GPT2Tokenizer")


@_variant
def damaged_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"model": {"type": "BPE"}}')


@_variant
def no_chat_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


@_variant
def more_tokens_than_rows(folder: Path) -> None:
    """Tokens were added to the tokenizer, and the embedding was not resized."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    token = {"id": 770, "content": "<tool_call>", "single_word": False, "lstrip": False, "rstrip": False}
    padding = {"id": 768, "content": "<tool>"}, {"id": 769, "content": "</tool>"}
    rest = token | {"normalized": False, "special": True}
    tokenizer["added_tokens"] += [*(rest | other for other in padding), rest]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


@_variant
def tied_with_equal_head(folder: Path) -> None:
    """unsloth and LLaMA-Factory save the shared matrix under both names."""
    change_tensors(folder, {EMBEDDING: read_tensors(folder / SINGLE)[HEAD]})
    _set_config(folder, tie_word_embeddings=True)


@_variant
def tied_with_another_head(folder: Path) -> None:
    _set_config(folder, tie_word_embeddings=True)


@_variant
def compiled(folder: Path) -> None:
    _renamed(folder, lambda name: f"_orig_mod.{name}")


@_variant
def wrapped_by_peft(folder: Path) -> None:
    _renamed(folder, lambda name: f"base_model.model.{name.replace('qkv_proj', 'qkv_proj.base_layer')}")


@_variant
def data_parallel(folder: Path) -> None:
    _renamed(folder, lambda name: f"module.{name}")


@_variant
def byte_order_marks(folder: Path) -> None:
    for file in folder.glob("*.json"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())


@_variant
def windows_line_ends(folder: Path) -> None:
    for name in ("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json"):
        file = folder / name
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))


@_variant
def not_a_number(folder: Path) -> None:
    edit_json(folder / "config.json", initializer_range=float("nan"))


@_variant
def files_of_a_trainer(folder: Path) -> None:
    """What the trainer leaves beside the model; NaN is usual in it, and no step reads it."""
    (folder / "trainer_state.json").write_text('{"best_metric": NaN}')
    (folder / "all_results.json").write_text("[1]")


@_variant
def auto_map(folder: Path) -> None:
    """A fine-tune of the published Phi-3, whose repository has Python files."""
    code = {"AutoConfig": "configuration_phi3.Phi3Config", "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM"}
    _set_config(folder, auto_map=code)
    for name in ("configuration_phi3.py", "modeling_phi3.py"):
        (folder / name).write_text(f"open('{folder}/it-ran', 'w').close()")


def _other_model(folder: Path, architecture: str, model_type: str, tensors: dict[str, Values], **fields: Any) -> None:
    write_tensors(folder / SINGLE, tensors)
    _set_config(folder, ("original_max_position_embeddings",), architectures=[architecture], model_type=model_type)
    edit_json(folder / "config.json", hidden_size=64, num_hidden_layers=1, num_attention_heads=4, **fields)


@_variant
def phi2(folder: Path) -> None:
    """phi-2's architecture and names, as far as fetch_model reads them."""
    tensors = {EMBEDDING: zeros("BF16", (768, 64), 2), "model.layers.0.mlp.fc1.weight": zeros("BF16", (128, 64), 2)}
    _other_model(folder, "PhiForCausalLM", "phi", tensors, intermediate_size=128, num_key_value_heads=4)


@_variant
def phimoe(folder: Path) -> None:
    """Phi-3.5-MoE's architecture, as its repository spells it, and names."""
    expert = "model.layers.0.block_sparse_moe.experts.0.w1.weight"
    tensors = {EMBEDDING: zeros("BF16", (768, 64), 2), expert: zeros("BF16", (64, 64), 2)}
    _other_model(folder, "PhiMoEForCausalLM", "phimoe", tensors, intermediate_size=64, num_key_value_heads=2)
