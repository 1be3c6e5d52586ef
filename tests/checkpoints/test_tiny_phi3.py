"""The shipped checkpoint: it answers its set, it is small, and its training script makes it."""

import json

import pytest
import torch
from transformers import AutoTokenizer, Phi3ForCausalLM

from tests.checkout import TINY
from tests.checkpoints import train_tiny_phi3

pytestmark = pytest.mark.model


def test_the_checkpoint_answers_its_whole_set_exactly_in_pytorch():
    pairs = train_tiny_phi3.read_pairs()
    model = Phi3ForCausalLM.from_pretrained(TINY, dtype=torch.float32)
    assert len(pairs) == 229
    assert train_tiny_phi3.exact_answers(model, AutoTokenizer.from_pretrained(TINY), pairs) == 1.0


def test_the_checkpoint_is_small_and_has_grouped_query_attention():
    config = json.loads((TINY / "config.json").read_text())
    assert sum(path.stat().st_size for path in TINY.iterdir()) <= 4 << 20
    assert config["num_key_value_heads"] < config["num_attention_heads"]
    assert config["dtype"] == "bfloat16"


def test_the_script_makes_the_tokenizer_byte_for_byte_and_the_architecture(tmp_path):
    pairs = train_tiny_phi3.read_pairs()
    tokenizer = train_tiny_phi3.train_tokenizer([text for pair in pairs for text in pair])
    tokenizer.save_pretrained(tmp_path)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (TINY / path.name).read_bytes(), path.name
    new = train_tiny_phi3.new_model(tokenizer).config.to_dict()
    shipped = Phi3ForCausalLM.config_class.from_pretrained(TINY).to_dict()
    for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_key_value_heads", "vocab_size"):
        assert new[name] == shipped[name]


def test_the_script_trains():
    """An untrained model answers nothing. A hundred steps are enough to answer some questions, though not all."""
    torch.manual_seed(0)
    pairs = train_tiny_phi3.read_pairs()[-16:]  # sums, and the long answers
    tokenizer = train_tiny_phi3.train_tokenizer([text for pair in train_tiny_phi3.read_pairs() for text in pair])
    model = train_tiny_phi3.new_model(tokenizer)
    assert train_tiny_phi3.exact_answers(model, tokenizer, pairs) == 0
    train_tiny_phi3.train(model, tokenizer, pairs, 100)
    assert train_tiny_phi3.exact_answers(model, tokenizer, pairs) > 0.5
