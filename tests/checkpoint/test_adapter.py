"""LoRA adapters: the facts of an adapter, and the adapters that are refused."""

import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from steps.checkpoint.describe import build_manifest
from steps.checkpoint.manifest import AdapterManifest, verify
from steps.common.errors import StepError
from tests.checkout import TINY
from tests.checkpoints.lora import ADAPTER_ORIGIN, QKV, adapter_manifest, edit_tensors, random_adapter
from tests.checkpoints.tiny import ORIGIN, edit_json

pytestmark = pytest.mark.model


def test_the_facts_of_an_adapter(adapter):
    manifest = adapter_manifest(adapter)
    tensors = load_file(adapter / "adapter_model.safetensors")
    assert manifest.model_copy(update={"files": ()}) == AdapterManifest.model_construct(
        origin=ADAPTER_ORIGIN,
        licence="not stated",
        rank=4,
        alpha=8.0,
        target_modules=("down_proj", "gate_up_proj", "o_proj", "qkv_proj"),
        modules=16,
        parameters=sum(tensor.numel() for tensor in tensors.values()),
        made_for=str(TINY),
        files=(),
    )
    assert [file.path for file in manifest.files] == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    verify(adapter, manifest.files)


def edit_config(folder: Path, **changes: Any) -> None:
    edit_json(folder / "adapter_config.json", **changes)


def _pickled(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


def _truncated(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def _without_b(tensors: dict) -> None:
    del tensors[f"{QKV}.lora_B.weight"]


def _wider(tensors: dict) -> None:
    tensors[f"{QKV}.lora_A.weight"] = torch.zeros(4, 200)


def _elsewhere(tensors: dict) -> None:
    for part in ("lora_A", "lora_B"):
        tensors[f"{QKV.replace('qkv', 'q')}.{part}.weight"] = tensors.pop(f"{QKV}.{part}.weight")


def _new_tokens(folder: Path) -> None:
    (folder / "added_tokens.json").write_text('{"<|tool|>": 768}')


BAD = {
    "no config": (lambda f: (f / "adapter_config.json").unlink(), "the adapter has no adapter_config.json"),
    "no weights": (lambda f: (f / "adapter_model.safetensors").unlink(), "has no adapter_model.safetensors: save it"),
    "pickled": (_pickled, "adapter_model.bin is pickled"),
    "broken config": (lambda f: (f / "adapter_config.json").write_text("{"), "adapter_config.json is damaged"),
    "config of something": (lambda f: (f / "adapter_config.json").write_text("[]"), "adapter_config.json is damaged"),
    "truncated": (_truncated, r"adapter_model.safetensors has \d+ bytes and its header says"),
    "not safetensors": (lambda f: (f / "adapter_model.safetensors").write_bytes(b"\xff" * 99), "not a safetensors"),
    "IA3": (lambda f: edit_config(f, peft_type="IA3"), "peft_type is 'IA3'; expected 'LORA'"),
    "whole modules": (
        lambda f: edit_config(f, modules_to_save=["lm_head"]),
        "sets modules_to_save, .*merge_and_unload",
    ),
    "tokens": (lambda f: edit_config(f, trainable_token_indices=[1]), "sets trainable_token_indices"),
    "PiSSA": (lambda f: edit_config(f, init_lora_weights="pissa_niter_4"), "'pissa_niter_4', which changes the base"),
    "no rank": (lambda f: edit_config(f, r=0), "r and lora_alpha are"),
    "another rank": (lambda f: edit_config(f, r=8), "says rank 8 for model.layers.0.* the weights have lora_A 4 x"),
    "a bad pattern": (
        lambda f: edit_config(f, rank_pattern={"(": 4}),
        r"rank_pattern '\(' is not a regular expression",
    ),
    "no B": (lambda f: edit_tensors(f, _without_b), r"no lora_B for model\.layers\.0\.self_attn\.qkv_proj"),
    "a wider base": (lambda f: edit_tensors(f, _wider), "lora_A 4 x 200 .* is 384 x 192 .* made for another base"),
    "another base": (lambda f: edit_tensors(f, _elsewhere), "q_proj, which the source does not have: .*another base"),
    "a bias": (lambda f: edit_tensors(f, lambda t: t.update({f"{QKV}.bias": torch.zeros(3)})), "not a LoRA tensor"),
    "empty": (lambda f: edit_tensors(f, dict.clear), "contains no tensors"),
    "new tokens": (_new_tokens, r"adds tokens that the source lacks \(<\|tool\|>\)"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_adapter_is_refused_in_one_line(adapter_copy, what):
    damage, message = BAD[what]
    damage(adapter_copy)
    with pytest.raises(StepError, match=message) as caught:
        adapter_manifest(adapter_copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "the source is quantised"),
        ({"tie_word_embeddings": True}, "lm_head, which the source shares between its embedding and its head"),
    ],
)
def test_a_base_that_no_adapter_can_be_merged_into_is_refused(tmp_path, changes, message):
    base = shutil.copytree(TINY, tmp_path / "base")
    edit_json(base / "config.json", **changes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapter = random_adapter(tmp_path / "adapter", target_modules=["lm_head"])
    with pytest.raises(StepError, match=message):
        adapter_manifest(adapter, base)


def test_a_checkpoint_with_an_adapter_in_its_folder_is_refused(adapter, tmp_path):
    """transformers would load the adapter without a message; the ONNX exporters would ignore it."""
    both = shutil.copytree(TINY, tmp_path / "both")
    shutil.copytree(adapter, both, dirs_exist_ok=True)
    for folder in (both, adapter):
        with pytest.raises(StepError, match=r"the source contains adapter_config\.json"):
            build_manifest(folder, ORIGIN)
