"""Checkpoints of every Phi geometry with random weights: at reduced size, or at the published size."""

from pathlib import Path
from typing import Any

# The proportions of the published config.json files. The head size is one that ONNX Runtime's CPU kernel accepts.
GEOMETRIES: dict[str, dict[str, Any]] = {
    "phi-3-mini": dict(num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=4096),
    "phi-3-medium": dict(num_attention_heads=8, num_key_value_heads=2, max_position_embeddings=4096),
    "phi-3-mini-128k": dict(num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=131072),
    "phi-3-medium-128k": dict(num_attention_heads=8, num_key_value_heads=2, max_position_embeddings=131072),
    "phi-4": dict(
        num_attention_heads=8,
        num_key_value_heads=2,
        max_position_embeddings=16384,
        original_max_position_embeddings=16384,
        rope_theta=250000.0,
    ),
    "phi-4-reasoning": dict(
        num_attention_heads=8,
        num_key_value_heads=2,
        max_position_embeddings=32768,
        original_max_position_embeddings=32768,
        rope_theta=500000.0,
    ),
    "phi-4-mini": dict(
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=131072,
        partial_rotary_factor=0.75,
        tie_word_embeddings=True,
        vocab_size=3000,
    ),
}
ORIGINAL_LENGTH = 4096  # tokens from which on LongRoPE's long factors hold; onnxruntime-genai supports no other value
HEAD_SIZE = 64
LONGROPE = [
    name
    for name, fields in GEOMETRIES.items()
    if fields["max_position_embeddings"] != fields.get("original_max_position_embeddings", ORIGINAL_LENGTH)
]

# The fields of the published config.json files that differ from GEOMETRIES, for measuring speed and memory.
_MINI: dict[str, Any] = dict(hidden_size=3072, intermediate_size=8192)
_PHI4: dict[str, Any] = dict(
    hidden_size=5120,
    intermediate_size=17920,
    num_attention_heads=40,
    num_key_value_heads=10,
    vocab_size=100352,
)
PUBLISHED: dict[str, dict[str, Any]] = {
    "phi-4": _PHI4,
    "phi-4-reasoning": _PHI4,
    "phi-3-mini": dict(_MINI, num_attention_heads=32, num_key_value_heads=32, vocab_size=32064),
    "phi-3-medium": dict(
        hidden_size=5120, intermediate_size=17920, num_attention_heads=40, num_key_value_heads=10, vocab_size=32064
    ),
    "phi-3-medium-128k": dict(
        hidden_size=5120, intermediate_size=17920, num_attention_heads=40, num_key_value_heads=10, vocab_size=32064
    ),
    "phi-3-mini-128k": dict(_MINI, num_attention_heads=32, num_key_value_heads=32, vocab_size=32064),
    "phi-4-mini": dict(_MINI, num_attention_heads=24, num_key_value_heads=8, vocab_size=200064),
}


def make_checkpoint(folder: Path, geometry: str, tokenizer: Path, **changes: Any) -> Path:
    """Write a checkpoint of a geometry with random bfloat16 weights. It has 2 small layers by default.

    Args:
        tokenizer: a checkpoint whose tokenizer is copied.
        changes: fields of the config that replace the default, such as PUBLISHED[geometry] or num_hidden_layers.
    """
    import torch
    from transformers import AutoTokenizer, Phi3Config, Phi3ForCausalLM
    from transformers.modeling_utils import no_init_weights

    torch.manual_seed(0)
    fields = _config_fields(geometry, changes)
    default_dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with no_init_weights():
            model = Phi3ForCausalLM(Phi3Config(bos_token_id=1, eos_token_id=3, pad_token_id=3, **fields))
    finally:
        torch.set_default_dtype(default_dtype)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, fields["hidden_size"] ** -0.5) if weight.ndim > 1 else weight.normal_(1, 0.1)
    model.tie_weights()
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return folder


def _config_fields(geometry: str, changes: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of Phi3Config, with LongRoPE's factors if the model was extended to a longer context."""
    fields: dict[str, Any] = dict(
        vocab_size=1000, num_hidden_layers=2, original_max_position_embeddings=ORIGINAL_LENGTH
    )
    fields |= GEOMETRIES[geometry] | changes
    fields.setdefault("hidden_size", HEAD_SIZE * fields["num_attention_heads"])
    fields.setdefault("intermediate_size", 2 * fields["hidden_size"])
    if fields["max_position_embeddings"] != fields["original_max_position_embeddings"]:
        head_size = fields["hidden_size"] // fields["num_attention_heads"]
        factors = int(head_size * fields.get("partial_rotary_factor", 1.0)) // 2
        fields["rope_scaling"] = {
            "type": "longrope",
            "short_factor": [1.0 + i / 100 for i in range(factors)],
            "long_factor": [1.0 + i for i in range(factors)],
        }
    return fields
