"""The description of a checkpoint, and the checkpoints that are refused."""

import hashlib
import json

import pytest

from steps.checkpoint.describe import build_manifest
from steps.checkpoint.manifest import Architecture
from steps.checkpoint.run_page import page_text, summary_line
from steps.common.errors import StepError
from steps.common.hashing import total_size
from tests.checkout import TINY
from tests.checkpoints.tiny import ORIGIN, edit_json

pytestmark = pytest.mark.unit


def test_the_facts_of_the_shipped_checkpoint():
    manifest = build_manifest(TINY, ORIGIN)
    assert manifest.architecture == Architecture(
        architecture="Phi3ForCausalLM",
        parameters=1_697_472,
        dtype="bfloat16",
        context_length=2048,
        layers=4,
        hidden_size=192,
        vocabulary=768,
        attention_heads=6,
        kv_heads=3,
        rope="default",
        partial_rotary_factor=1.0,
        tied_embeddings=False,
    )
    assert {file.path for file in manifest.files} == {path.name for path in TINY.iterdir()}
    assert total_size(manifest.files) == sum(path.stat().st_size for path in TINY.iterdir())


def test_the_hash_agrees_with_pythons_own():
    stated = {file.path: file.sha256 for file in build_manifest(TINY, ORIGIN).files}
    with (TINY / "model.safetensors").open("rb") as weights:
        assert stated["model.safetensors"] == hashlib.file_digest(weights, "sha256").hexdigest()


def test_the_run_page_states_the_facts():
    manifest = build_manifest(TINY, ORIGIN)
    assert summary_line(manifest).startswith("tiny-phi3: 1.7M parameters, bfloat16, 3.4 MB")
    assert "| Source | `params/tiny-phi3` (folder) |" in page_text(manifest)
    assert "| Attention | 6 heads, 3 KV heads |" in page_text(manifest)


def test_longrope_is_named(folder):
    rope = {"type": "longrope", "short_factor": [1.0] * 16, "long_factor": [2.0] * 16}
    edit_json(folder / "config.json", rope_scaling=rope)
    assert build_manifest(folder, ORIGIN).architecture.rope == "longrope"


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlanguage: en\nlicense: mit\n---\n# A model\nlicense: gpl", "mit"),
        ("# A model\nlicense: gpl", "not stated"),
    ],
)
def test_the_licence_is_read_from_the_header_of_the_model_card(folder, card, licence):
    (folder / "README.md").write_text(card)
    assert build_manifest(folder, ORIGIN).licence == licence


def test_the_end_tokens_are_the_union_of_what_the_files_name(folder):
    edit_json(folder / "generation_config.json", eos_token_id=[6, 5])
    edit_json(folder / "tokenizer_config.json", eos_token="<|user|>")
    canonical = build_manifest(folder, ORIGIN).canonical
    assert canonical.end_tokens == (6, 5, 3, 7)
    assert canonical.end_token_sources == (
        "generation_config.json",
        "config.json",
        "the tokenizer",
        "the chat template",
    )


def test_a_file_without_end_tokens_is_no_source(folder):
    (folder / "generation_config.json").unlink()
    (folder / "chat_template.jinja").unlink()
    assert build_manifest(folder, ORIGIN).canonical.end_token_sources == ("config.json", "the tokenizer")


def test_the_token_with_which_the_chat_template_ends_a_turn_ends_an_answer(folder):
    (folder / "generation_config.json").unlink()
    canonical = build_manifest(folder, ORIGIN).canonical
    assert canonical.end_tokens == (3, 6)
    assert canonical.end_token_sources == ("config.json", "the tokenizer", "the chat template")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 5}, "num_hidden_layers 5, but the weights hold 4"),
        ({"num_key_value_heads": 6}, "asks for model.layers.0.self_attn.qkv_proj.weight of 576 x 192.* have 384 x 192"),
        ({"intermediate_size": 400}, "asks for model.layers.0.mlp.gate_up_proj.weight of 800 x 192"),
        ({"hidden_size": 198}, "hidden_size 198, but model.embed_tokens.weight is 768 x 192"),
        ({"model_type": "phi3small", "architectures": ["Phi3SmallForCausalLM"]}, "architecture Phi3SmallForCausalLM"),
        ({"architectures": ["Phi3ForSequenceClassification"]}, "not a causal language model"),
        ({"max_position_embeddings": "long"}, "max_position_embeddings is 'long'; expected a whole number"),
    ],
)
def test_a_config_that_is_damaged_unsupported_or_contradicts_the_weights_is_refused(folder, changes, message):
    edit_json(folder / "config.json", **changes)
    with pytest.raises(StepError, match=message):
        build_manifest(folder, ORIGIN)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_config_that_is_not_a_json_object_is_refused(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(StepError, match="config.json is not valid JSON"):
        build_manifest(folder, ORIGIN)


def test_pickled_weights_are_refused_by_name(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(StepError, match=r"pytorch_model\.bin is pickled"):
        build_manifest(folder, ORIGIN)


def test_a_checkpoint_without_weights_is_refused(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(StepError, match=r"the checkpoint has no \*\.safetensors file: save it again"):
        build_manifest(folder, ORIGIN)


def test_truncated_weights_are_refused_by_name(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(StepError, match=r"model\.safetensors has \d+ bytes and its header says"):
        build_manifest(folder, ORIGIN)


def test_a_missing_shard_is_named(folder):
    index = {
        "weight_map": {"model.norm.weight": "model.safetensors", "lm_head.bias": "model-00002-of-00002.safetensors"}
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(StepError, match=r"model-00002-of-00002\.safetensors, .* is missing"):
        build_manifest(folder, ORIGIN)


def test_weights_that_are_not_safetensors_are_refused_by_name(folder):
    (folder / "model.safetensors").write_bytes(b"\xff" * 4000)
    with pytest.raises(StepError, match=r"model\.safetensors is not a safetensors file"):
        build_manifest(folder, ORIGIN)


@pytest.mark.parametrize(
    "entry",
    [
        b'{"t": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 4]}}',
        b'{"t": {"dtype": "BF16", "shape": [1e999], "data_offsets": [0, 4]}}',
        b'{"t": {"dtype": "BF16", "shape": [2], "data_offsets": [-4, 0]}}',
        b"[" * 200_000,
    ],
    ids=["another size", "infinite", "negative", "nested"],
)
def test_a_header_that_contradicts_itself_is_refused_by_file(folder, entry):
    (folder / "model.safetensors").write_bytes(len(entry).to_bytes(8, "little") + entry + bytes(4))
    with pytest.raises(StepError, match=r"^model\.safetensors is not a safetensors file"):
        build_manifest(folder, ORIGIN)
