"""LoRA adapters: what is said of one, what is refused, and what merging writes, beside peft's own merging."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from steps.checkpoint.manifest import AdapterManifest, Origin, build_adapter_manifest, build_manifest, verify
from steps.checkpoint.merge import merge_adapter
from steps.checkpoint.source import parse_source
from steps.common.errors import StepError
from tests.checkpoints.lora import ALL, merged_by_peft, random_adapter, random_checkpoint
from tests.checkpoints.tiny import ORIGIN
from tests.conftest import ROOT, TINY

FILES = [path.name for path in TINY.iterdir()]
ADAPTER_ORIGIN = Origin(kind="folder", location="lora", name="lora", commit="")
QKV = "base_model.model.model.layers.0.self_attn.qkv_proj"


@pytest.fixture(scope="session")
def plain(tmp_path_factory):
    """An adapter on every matrix of the shipped checkpoint's layers."""
    return random_adapter(tmp_path_factory.mktemp("adapter") / "plain")


@pytest.fixture
def folder(plain, tmp_path):
    """A copy of it to spoil."""
    return shutil.copytree(plain, tmp_path / "adapter")


def described(adapter: Path, base: Path = TINY) -> AdapterManifest:
    """The manifest of an adapter."""
    return build_adapter_manifest(adapter, ADAPTER_ORIGIN, base)


def edit_config(folder: Path, **changes) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_tensors(folder: Path, edit) -> None:
    """Change the dict of the adapter's tensors in place."""
    tensors = load_file(folder / "adapter_model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "adapter_model.safetensors")


def test_the_facts_of_an_adapter(plain):
    manifest = described(plain)
    tensors = load_file(plain / "adapter_model.safetensors")
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
    verify(plain, manifest.files)


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
    modules = described(adapter).modules
    merge_adapter(TINY, adapter, tmp_path / "merged", FILES)
    merged, expected = load_file(tmp_path / "merged" / "model.safetensors"), merged_by_peft(adapter)
    assert {name: tensor.dtype for name, tensor in merged.items()} == dict.fromkeys(expected, torch.bfloat16)
    assert [name for name in expected if not torch.equal(merged[name], expected[name])] == []
    base = load_file(TINY / "model.safetensors")
    assert len([name for name in base if not torch.equal(merged[name], base[name])]) == modules


def test_the_merged_folder_is_a_checkpoint_like_the_base(plain, tmp_path):
    merge_adapter(TINY, plain, tmp_path / "merged", FILES)
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
    described(adapter, base)
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
    assert described(adapter, base).modules == 16
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
    "another rank": (lambda f: edit_config(f, r=8), "says rank 8 for model.layers.0.* its lora_A is 4 x"),
    "a bad pattern": (lambda f: edit_config(f, rank_pattern={"(": 4}), r"rank_pattern '\(' is no pattern"),
    "no B": (lambda f: edit_tensors(f, _without_b), r"no lora_B for model\.layers\.0\.self_attn\.qkv_proj"),
    "a wider base": (lambda f: edit_tensors(f, _wider), "lora_A 4 x 200 .* is 384 x 192 .* made for another base"),
    "another base": (lambda f: edit_tensors(f, _elsewhere), "q_proj, which the source does not have: .*another base"),
    "a bias": (lambda f: edit_tensors(f, lambda t: t.update({f"{QKV}.bias": torch.zeros(3)})), "not a LoRA tensor"),
    "empty": (lambda f: edit_tensors(f, dict.clear), "holds no tensors"),
    "new tokens": (_new_tokens, r"tokens that the source lacks \(<\|tool\|>\)"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_adapter_is_refused_in_one_line(folder, what):
    spoil, message = BAD[what]
    spoil(folder)
    with pytest.raises(StepError, match=message) as caught:
        described(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "the source is quantised"),
        ({"tie_word_embeddings": True}, "lm_head, which the source shares between its embedding and its head"),
    ],
)
def test_a_base_that_nothing_can_be_merged_into_is_named(tmp_path, changes, message):
    base = shutil.copytree(TINY, tmp_path / "base")
    config = json.loads((base / "config.json").read_text()) | changes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapter = random_adapter(tmp_path / "adapter", target_modules=["lm_head"])
    (base / "config.json").write_text(json.dumps(config))
    with pytest.raises(StepError, match=message):
        described(adapter, base)


def test_weights_that_the_config_does_not_target_are_refused(folder, tmp_path):
    """peft would leave them out with a warning."""
    edit_config(folder, target_modules=["qkv_proj", "o_proj", "down_proj"])
    with pytest.raises(StepError, match=r"do not name the same modules \(model\.layers\.0\.mlp\.gate_up_proj"):
        merge_adapter(TINY, folder, tmp_path / "merged", FILES)


@pytest.mark.parametrize(("value", "dtype"), [(float("nan"), None), (1e6, torch.float16)])
def test_a_sum_that_is_not_finite_is_refused(folder, tmp_path, value, dtype):
    def spoil(tensors: dict) -> None:
        tensors[f"{QKV}.lora_A.weight"][0, 0] = value

    edit_tensors(folder, spoil)
    base = TINY
    if dtype:
        base = tmp_path / "base"
        shutil.copytree(TINY, base)
        save_file(
            {k: t.to(dtype) for k, t in load_file(TINY / "model.safetensors").items()}, base / "model.safetensors"
        )
    with pytest.raises(StepError, match=r"into model\.layers\.0\.self_attn\.qkv_proj\.weight .* not finite"):
        merge_adapter(base, folder, tmp_path / "merged", FILES)


def test_a_disk_that_is_too_small_is_known_before_anything_is_written(plain, tmp_path):
    base = shutil.copytree(TINY, tmp_path / "base")
    os.truncate(base / "model.safetensors", 10**13)  # a sparse file
    with pytest.raises(StepError, match=r"merging the adapter needs 10\.0 TB"):
        merge_adapter(base, plain, tmp_path / "merged", FILES)
    assert not (tmp_path / "merged").exists()


def test_a_checkpoint_with_an_adapter_in_its_folder_is_refused(plain, tmp_path):
    """transformers would load it by itself, and the ONNX exporters would not."""
    both = shutil.copytree(TINY, tmp_path / "both")
    shutil.copytree(plain, both, dirs_exist_ok=True)
    for folder in (both, plain):
        with pytest.raises(StepError, match=r"the source contains adapter_config\.json"):
            build_manifest(folder, ORIGIN)


@pytest.mark.parametrize(
    ("text", "kind", "revision", "name"),
    [
        ("somebody/lora", "hub", "", "somebody/lora"),
        ("somebody/lora@v1", "hub", "v1", "somebody/lora"),
        ("params/tiny-phi3", "folder", "", "tiny-phi3"),
        ("models:/lora@champion", "artifact", "", "lora"),
        ("s3://bucket/lora", "artifact", "", "lora"),
    ],
)
def test_the_kinds_of_adapter(text, kind, revision, name):
    place = parse_source(text, ROOT, "adapter")
    assert (place.kind, place.revision, place.name) == (kind, revision, name)
    assert place.moves == text.startswith("s3:")


@pytest.mark.parametrize("text", ["no-such-folder", "somebody/lora@", "@v1", "a/b/c@v1"])
def test_what_is_no_adapter_is_refused(text):
    with pytest.raises(StepError, match=r"adapter is .* owner/name@revision"):
        parse_source(text, ROOT, "adapter")
