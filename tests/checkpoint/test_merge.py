"""Merging a LoRA adapter into a checkpoint, compared with peft's own merging."""

import json
import os
import shutil
import subprocess
import sys
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

from steps.checkpoint.describe import build_manifest
from steps.checkpoint.merge import merge_adapter
from steps.common.errors import StepError
from tests.checkout import ROOT, TINY
from tests.checkpoints.lora import (
    ALL,
    QKV,
    adapter_manifest,
    edit_tensors,
    merged_by_peft,
    random_adapter,
    random_checkpoint,
)
from tests.checkpoints.tiny import ORIGIN, edit_json

pytestmark = pytest.mark.model

FILES = [path.name for path in TINY.iterdir()]
KINDS = {
    "lora": {},
    "rslora with ranks of its own": {
        "use_rslora": True,
        "rank_pattern": {"qkv_proj": 7, "layers.1.mlp.down_proj": 3},
        "alpha_pattern": {"o_proj": 5},
    },
    "dora": {"use_dora": True},
    "some layers": {"target_modules": r".*layers\.[02]\..*qkv_proj"},
    "embedding and head": {"target_modules": [*ALL, "embed_tokens", "lm_head"]},
    "in bfloat16": {"dtype": torch.bfloat16},
}


@pytest.mark.parametrize("kind", KINDS)
def test_merging_gives_what_peft_gives_rounded_once(tmp_path, kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's, that it saves the embedding too
        adapter = random_adapter(tmp_path / "adapter", **KINDS[kind])
    modules = adapter_manifest(adapter).modules
    merge_adapter(TINY, adapter, tmp_path / "merged", FILES)
    merged, expected = load_file(tmp_path / "merged" / "model.safetensors"), merged_by_peft(adapter)
    assert {name: tensor.dtype for name, tensor in merged.items()} == dict.fromkeys(expected, torch.bfloat16)
    assert [name for name in expected if not torch.equal(merged[name], expected[name])] == []
    base = load_file(TINY / "model.safetensors")
    assert len([name for name in base if not torch.equal(merged[name], base[name])]) == modules


def test_the_merged_folder_is_a_checkpoint_like_the_base(adapter, tmp_path):
    merge_adapter(TINY, adapter, tmp_path / "merged", FILES)
    merged, base = build_manifest(tmp_path / "merged", ORIGIN), build_manifest(TINY, ORIGIN)
    changed = [a.path for a, b in zip(base.files, merged.files, strict=True) if a != b]
    assert changed == ["model.safetensors"]
    assert merged.architecture == base.architecture


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_base_in_shards_and_another_dtype_keeps_them(tmp_path, dtype):
    from transformers import AutoModelForCausalLM

    base = tmp_path / "base"
    AutoModelForCausalLM.from_pretrained(TINY, dtype=dtype).save_pretrained(base, max_shard_size="2MB")
    names = [path.name for path in base.iterdir()]
    assert len([name for name in names if name.endswith(".safetensors")]) > 1
    before = {name: (base / name).read_bytes() for name in names}
    adapter = random_adapter(tmp_path / "adapter", base)
    adapter_manifest(adapter, base)
    merge_adapter(base, adapter, tmp_path / "merged", names)
    expected = merged_by_peft(adapter, base)
    for file in (tmp_path / "merged").glob("*.safetensors"):
        for name, tensor in load_file(file).items():
            assert tensor.dtype == dtype
            assert torch.equal(tensor, expected.pop(name)), name
    assert not expected
    assert {name: (base / name).read_bytes() for name in names} == before, "the base is read only"


def test_a_base_as_phi_4_mini_is(tmp_path):
    """Tied embeddings without a head in the file, longrope, and a config that names remote code."""
    from transformers import AutoConfig, AutoModelForCausalLM

    rope = {"type": "longrope", "short_factor": [1.0] * 12, "long_factor": [2.0] * 12}
    config = AutoConfig.from_pretrained(
        TINY, tie_word_embeddings=True, rope_scaling=rope, partial_rotary_factor=0.75, max_position_embeddings=4096
    )
    base = tmp_path / "base"
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(base)
    auto_map = {"AutoConfig": "configuration_phi3.Phi3Config", "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM"}
    edited = json.loads((base / "config.json").read_text()) | {"auto_map": auto_map}
    (base / "config.json").write_text(json.dumps(edited))
    adapter = random_adapter(tmp_path / "adapter", base)
    assert adapter_manifest(adapter, base).modules == 16
    merge_adapter(base, adapter, tmp_path / "merged", [path.name for path in base.iterdir()])
    merged, expected = load_file(tmp_path / "merged" / "model.safetensors"), merged_by_peft(adapter, base)
    assert "lm_head.weight" not in merged
    assert [name for name in expected if not torch.equal(merged[name], expected[name])] == []


def test_memory_does_not_grow_with_the_model(tmp_path):
    """In a process of its own, where torch and peft are loaded before the clock starts."""
    base = random_checkpoint(tmp_path / "base", layers=12)
    adapter = random_adapter(tmp_path / "adapter", base)
    size = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    assert size > 250e6
    script = """
import sys, threading, time
import peft.tuners.lora, safetensors.torch, transformers
from pathlib import Path
from transformers import Phi3ForCausalLM
from steps.checkpoint.merge import merge_adapter
def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
samples = [anonymous()]
def watch():
    while True:
        samples.append(anonymous())
        time.sleep(0.002)
threading.Thread(target=watch, daemon=True).start()
base, adapter, out = map(Path, sys.argv[1:])
merge_adapter(base, adapter, out, [path.name for path in base.iterdir()])
print(max(samples) - samples[0])
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(base), str(adapter), str(tmp_path / "merged")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < 0.7 * size  # 0.45 measured, of which two thirds whatever the size


def test_weights_that_the_config_does_not_target_are_refused(adapter_copy, tmp_path):
    """peft would leave them out with a warning."""
    edit_json(adapter_copy / "adapter_config.json", target_modules=["qkv_proj", "o_proj", "down_proj"])
    with pytest.raises(StepError, match=r"name different modules \(model\.layers\.0\.mlp\.gate_up_proj"):
        merge_adapter(TINY, adapter_copy, tmp_path / "merged", FILES)


@pytest.mark.parametrize(("value", "dtype"), [(float("nan"), None), (1e6, torch.float16)])
def test_a_sum_that_is_not_finite_is_refused(adapter_copy, tmp_path, value, dtype):
    def damage(tensors: dict) -> None:
        tensors[f"{QKV}.lora_A.weight"][0, 0] = value

    edit_tensors(adapter_copy, damage)
    base = TINY
    if dtype:
        base = tmp_path / "base"
        shutil.copytree(TINY, base)
        save_file(
            {k: t.to(dtype) for k, t in load_file(TINY / "model.safetensors").items()}, base / "model.safetensors"
        )
    with pytest.raises(StepError, match=r"into model\.layers\.0\.self_attn\.qkv_proj\.weight .* not finite"):
        merge_adapter(base, adapter_copy, tmp_path / "merged", FILES)


def test_a_disk_that_is_too_small_is_known_before_anything_is_written(adapter, tmp_path):
    base = shutil.copytree(TINY, tmp_path / "base")
    os.truncate(base / "model.safetensors", 10**13)  # a sparse file
    with pytest.raises(StepError, match=r"merging the adapter needs 10\.0 TB"):
        merge_adapter(base, adapter, tmp_path / "merged", FILES)
    assert not (tmp_path / "merged").exists()
