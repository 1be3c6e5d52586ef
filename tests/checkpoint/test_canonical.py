"""The canonical form loads in transformers as the source does: same config, same tokens, same prompts."""

from pathlib import Path

import pytest

from steps.checkpoint.canonical import canonical_form
from tests.checkout import TINY
from tests.checkpoints.geometries import GEOMETRIES
from tests.checkpoints.variants import make_variant

pytestmark = pytest.mark.model

TEXT = "What is the capital of Côte d'Ivoire?\n\t12,5 €<|end|>"


def canonical(source: Path, target: Path) -> Path:
    """Write the canonical form of a checkpoint. Return its folder."""
    canonical_form(source).write(source, target)
    return target


def config_of(folder: Path) -> dict:
    """Return what transformers reads of a checkpoint's config.json, without the folder's name."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder).to_dict() | {"_name_or_path": ""}


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_every_geometry_has_the_config_of_its_source(checkpoints, geometry, tmp_path):
    assert config_of(canonical(checkpoints[geometry], tmp_path / "canonical")) == config_of(checkpoints[geometry])


@pytest.mark.parametrize("name", ["auto_map", "llama", "windows_line_ends"])
def test_variants_of_the_shipped_checkpoint_have_the_config_of_their_source(tmp_path, name):
    source = make_variant(tmp_path / name, name)
    expected = {key: value for key, value in config_of(source).items() if key != "auto_map"}
    actual = config_of(canonical(source, tmp_path / "canonical"))
    assert actual == {key: value for key, value in expected.items() if key in actual}
    assert set(expected) - set(actual) <= {"embd_pdrop", "resid_pdrop", "sliding_window"}  # Llama has no such fields


def test_other_families_have_the_config_of_their_source(tmp_path):
    from transformers import MistralConfig, PhiConfig, PhimoeConfig

    for config, architecture in ((MistralConfig, "Mistral"), (PhiConfig, "Phi"), (PhimoeConfig, "Phimoe")):
        source = make_variant(tmp_path / f"{architecture}-source", "auto_map")
        config(
            architectures=[f"{architecture}ForCausalLM"],
            rope_theta=5000.0,
            eos_token_id=3,
            tie_word_embeddings=True,
            head_dim=64,
        ).save_pretrained(source)
        assert config_of(canonical(source, tmp_path / architecture)) == config_of(source)


@pytest.mark.parametrize("name", ["transformers5_tokenizer", "vocabulary_and_merges", "byte_order_marks", "auto_map"])
def test_variants_have_the_tokens_of_the_shipped_checkpoint(tmp_path, name):
    from transformers import AutoTokenizer

    source = make_variant(tmp_path / name, name)
    tokenizer = AutoTokenizer.from_pretrained(canonical(source, tmp_path / "canonical"))
    assert tokenizer(TEXT)["input_ids"] == AutoTokenizer.from_pretrained(TINY)(TEXT)["input_ids"]
    messages = [{"role": "user", "content": "Hello"}]
    assert tokenizer.apply_chat_template(messages) == AutoTokenizer.from_pretrained(TINY).apply_chat_template(messages)


@pytest.mark.parametrize("name", ["byte_order_marks", "stale_shards", "file_beside_index", "tied_with_equal_head"])
def test_the_weights_are_those_that_the_index_lists(tmp_path, name):
    import torch
    from transformers import AutoModelForCausalLM

    source = make_variant(tmp_path / name, name)
    folder = canonical(source, tmp_path / "canonical")
    weights = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    shipped = AutoModelForCausalLM.from_pretrained(TINY).state_dict()
    for key, weight in shipped.items():
        if key != "model.embed_tokens.weight" or name != "tied_with_equal_head":
            assert torch.equal(weights[key], weight), key
