"""PyTorch's session: chunks, copied rows and LongRoPE give the logits of one run of transformers' model."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import Phi3Config, Phi3ForCausalLM, PhiConfig, PhiForCausalLM, PhimoeConfig, PhimoeForCausalLM

from steps.chat.runtime.torch_session import TorchSession

pytestmark = pytest.mark.model
SWITCH = 16  # tokens from which on LongRoPE's long factors hold
FIELDS: dict[str, Any] = dict(
    vocab_size=100,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    bos_token_id=1,
    eos_token_id=3,
    pad_token_id=3,
)
SCALING = {"short_factor": [1.0] * 8, "long_factor": [1.0 + factor for factor in range(8)]}
LONG = FIELDS | {"max_position_embeddings": 64, "rope_scaling": {"type": "longrope"} | SCALING}
MOE = {"num_local_experts": 2, "attention_bias": True}
MOE_SCALING = {"short_mscale": 1.1, "long_mscale": 1.3, "original_max_position_embeddings": SWITCH}
MODELS = {
    "phi": lambda: PhiForCausalLM(PhiConfig(**FIELDS)),
    "phi-3": lambda: Phi3ForCausalLM(Phi3Config(**FIELDS, sliding_window=7)),
    "phi-3-long": lambda: Phi3ForCausalLM(Phi3Config(**LONG, original_max_position_embeddings=SWITCH)),
    "phi-moe-long": lambda: PhimoeForCausalLM(
        PhimoeConfig(**(LONG | MOE | {"rope_scaling": LONG["rope_scaling"] | MOE_SCALING}))
    ),
}


@pytest.fixture(params=MODELS)
def model(request) -> Any:
    """A small model with random weights."""
    torch.manual_seed(0)
    return MODELS[request.param]().eval()


def logits_of(model: Any, tokens: list[int]) -> np.ndarray:
    """Return the logits after each token, in one run without a KV cache."""
    with torch.no_grad():
        return model(torch.tensor([tokens]), use_cache=False).logits[0].numpy()


TOKENS = np.random.default_rng(0).integers(4, 100, SWITCH + 8).tolist()


def test_chunks_copies_and_steps_give_the_logits_of_one_run(model):
    session, tokens = TorchSession(model, 1, "cpu", 3), TOKENS[:SWITCH]
    expected = logits_of(model, tokens)
    close = {"rtol": 1e-3, "atol": 1e-5}
    assert session.prefill(0, tokens[:5], 0).shape == (0, 100)
    np.testing.assert_allclose(session.prefill(0, tokens[5:12], 5, logits=7), expected[5:12], **close)
    session.copy(0, 1, 10)
    session.copy(0, 2, 12)
    steps = session.decode(0, [tokens[12], tokens[10], tokens[12]], [13, 11, 13])
    np.testing.assert_allclose(steps, expected[[12, 10, 12]], **close)
    session.free(0)
    np.testing.assert_allclose(session.prefill(0, tokens, 0, logits=1), expected[-1:], **close)


def test_longropes_factors_follow_the_length_of_the_mask(model):
    session, expected = TorchSession(model, 1, "cpu", 1), logits_of(model, TOKENS)
    session.prefill(0, TOKENS[:6], 0, mask_length=SWITCH + 1)  # short as it is, its text is of more than SWITCH tokens
    long = session.prefill(0, TOKENS[6:], 6, mask_length=SWITCH + 1, logits=3)
    np.testing.assert_allclose(long, expected[-3:], rtol=1e-3, atol=1e-5)
    short = session.prefill(0, TOKENS[:6], 0, logits=1)
    np.testing.assert_allclose(short, logits_of(model, TOKENS[:6])[-1:], rtol=1e-3, atol=1e-5)


def test_the_decoder_is_described_by_its_configuration(model):
    decoder = TorchSession(model, 1, "cpu", 1).graph
    assert (decoder.vocab_size, decoder.end_tokens, decoder.selects_logits) == (100, (3,), True)
    assert decoder.token_bytes == 2 * 2 * 2 * 16 * 4  # keys and values, layers, heads, size, float32
