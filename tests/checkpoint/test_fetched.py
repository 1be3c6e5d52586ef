"""What fetch_model makes of checkpoints as today's tools save them, through a user's command line."""

import pytest

from steps.checkpoint.manifest import MANIFEST, Manifest
from tests.checkout import assert_refused
from tests.checkpoints.variants import make_variant

pytestmark = pytest.mark.e2e

UNQUANTISED = "give the unquantised checkpoint"
REFUSED = {
    "fp8": ("quantised by compressed-tensors", UNQUANTISED),
    "fp8_without_config": ("quantised by FP8 or compressed-tensors", "down_proj.weight_scale", UNQUANTISED),
    "bytes_without_config": ("model.layers.0.mlp.down_proj.weight has the dtype F8_E4M3", UNQUANTISED),
    "bitsandbytes": ("quantised by bitsandbytes", UNQUANTISED),
    "bitsandbytes_without_config": ("quantised by bitsandbytes", "weight.absmax", UNQUANTISED),
    "gptq": ("quantised by gptq", UNQUANTISED),
    "gptq_without_config": ("quantised by GPTQ or AWQ", "down_proj.qweight", UNQUANTISED),
    "awq": ("quantised by awq", UNQUANTISED),
    "index_outside": ("puts lm_head.weight into '../other/model-00002-of-00002.safetensors'",),
    "no_end_token": ("no file of the checkpoint names an end token", "eos_token_id"),
    "no_tokenizer": ("the checkpoint has no tokenizer.json", "save_pretrained"),
    "sentencepiece_only": (
        "the checkpoint has no tokenizer.json",
        "tokenizer.model",
        "sentencepiece",
        "save_pretrained",
    ),
    "damaged_merges": ("the checkpoint has no tokenizer.json, and transformers cannot build it", "save_pretrained"),
    "damaged_tokenizer": ("tokenizer.json is damaged",),
    "more_tokens_than_rows": ("token IDs up to 770, and the embedding has 768 rows", "resize_token_embeddings"),
    "tied_with_another_head": (
        "tie_word_embeddings true",
        "lm_head.weight that differs from model.embed_tokens.weight",
    ),
    "compiled": ("_orig_mod.", "torch.compile", "unwrap the model"),
    "wrapped_by_peft": ("base_model.model.", "peft", "merge_and_unload"),
    "data_parallel": ("module.", "DataParallel", "unwrap the model"),
    "not_a_number": ("config.json is not valid JSON (NaN is not a JSON number)",),
}
# Variant -> what the line of fetch_model has.
FETCHED = {
    "transformers5_config": "1.7M parameters",
    "transformers5_tokenizer": "1.7M parameters",
    "llama": "1.7M parameters",
    "shards": "1.7M parameters",
    "stale_shards": "ignored model-00001-of-00003.safetensors, model-00002-of-00003.safetensors and 1 more",
    "file_beside_index": "ignored model.safetensors",
    "tokenizer_knows_the_end": "1.7M parameters",
    "vocabulary_and_merges": "1.7M parameters",
    "no_generation_config": "1.7M parameters",
    "no_chat_template": "no chat template, so llm/v1/completions only",
    "tied_with_equal_head": "1.7M parameters",
    "byte_order_marks": "1.7M parameters",
    "windows_line_ends": "1.7M parameters",
    "files_of_a_trainer": "1.7M parameters",
    "auto_map": "1.7M parameters",
    "phi2": "its only wrapper is transformers",
    "phimoe": "its only wrapper is transformers",
}


def fetch(local, tmp_path, name: str):
    """Make a variant and give it to fetch_model. Return the command's result."""
    return local.run_module("fetch_model", source=str(make_variant(tmp_path / name, name)))


@pytest.mark.parametrize("name", REFUSED)
def test_a_checkpoint_that_no_wrapper_can_use_is_refused_in_one_line(local, tmp_path, name):
    result = fetch(local, tmp_path, name)
    assert result.code == 1
    assert_refused(local, result, *REFUSED[name])


@pytest.mark.parametrize("name", FETCHED)
def test_a_checkpoint_is_fetched_and_what_is_special_is_said(local, tmp_path, name):
    result = fetch(local, tmp_path, name)
    assert result.code == 0, result.err
    assert FETCHED[name] in result.out
    assert not (tmp_path / name / "it-ran").exists()


def manifest_of(local) -> Manifest:
    """Return the manifest of the latest fetch_model run."""
    import mlflow

    run = local.latest("fetch_model").info.run_id
    with local.in_this_process():
        return Manifest.parse(mlflow.artifacts.load_text(f"runs:/{run}/{MANIFEST}"), MANIFEST)


def test_the_manifest_says_which_end_tokens_hold_and_who_names_them(local, tmp_path):
    assert fetch(local, tmp_path, "tokenizer_knows_the_end").code == 0
    canonical = manifest_of(local).canonical
    assert canonical.end_tokens == (3, 6)
    assert canonical.end_token_sources == ("config.json", "the tokenizer", "the chat template")


def test_the_manifest_lists_the_files_that_count_and_no_other(local, tmp_path):
    assert fetch(local, tmp_path, "stale_shards").code == 0
    manifest = manifest_of(local)
    weights = [file.path for file in manifest.files if "safetensors" in file.path]
    assert weights == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    assert len(manifest.canonical.ignored_files) == 3
