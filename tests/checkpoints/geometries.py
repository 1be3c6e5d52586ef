"""Every Phi geometry with random weights: at reduced size, keeping what tells them apart, or as published."""

from pathlib import Path

GEOMETRIES = {  # the proportions of the published config.json files; head sizes that the CPU attention kernel takes
    "phi-3-mini": dict(num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=4096),
    "phi-3-medium": dict(num_attention_heads=8, num_key_value_heads=2, max_position_embeddings=4096),
    "phi-3-mini-128k": dict(num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=131072),
    "phi-4-mini": dict(
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=131072,
        partial_rotary_factor=0.75,
        tie_word_embeddings=True,
        vocab_size=3000,
    ),
}
ORIGINAL_LENGTH = 4096  # where the LongRoPE models switch; the runtime knows no other for them
HEAD_SIZE = 64


_MINI = dict(hidden_size=3072, intermediate_size=8192)
PUBLISHED = {  # what the published config.json files have otherwise, for measuring speed and memory
    "phi-3-mini": dict(_MINI, num_attention_heads=32, num_key_value_heads=32, vocab_size=32064),
    "phi-3-medium": dict(
        hidden_size=5120, intermediate_size=17920, num_attention_heads=40, num_key_value_heads=10, vocab_size=32064
    ),
    "phi-3-mini-128k": dict(_MINI, num_attention_heads=32, num_key_value_heads=32, vocab_size=32064),
    "phi-4-mini": dict(_MINI, num_attention_heads=24, num_key_value_heads=8, vocab_size=200064),
}


def make_checkpoint(folder: Path, geometry: str, tokenizer: Path, **changes) -> Path:
    """Write a checkpoint of a geometry: random bfloat16 weights, the tokenizer of another checkpoint; 2 small layers.

    Args:
        changes: fields of the config that are to be otherwise, such as PUBLISHED[geometry] and num_hidden_layers.
    """
    import torch
    from transformers import AutoTokenizer, Phi3Config, Phi3ForCausalLM
    from transformers.modeling_utils import no_init_weights

    fields = dict(vocab_size=1000, num_hidden_layers=2, original_max_position_embeddings=ORIGINAL_LENGTH)
    fields |= GEOMETRIES[geometry] | changes
    fields.setdefault("hidden_size", HEAD_SIZE * fields["num_attention_heads"])
    fields.setdefault("intermediate_size", 2 * fields["hidden_size"])
    if fields["max_position_embeddings"] != ORIGINAL_LENGTH:
        head = fields["hidden_size"] // fields["num_attention_heads"]
        half = int(head * fields.get("partial_rotary_factor", 1.0)) // 2
        fields["rope_scaling"] = {
            "type": "longrope",
            "short_factor": [1.0 + i / 100 for i in range(half)],
            "long_factor": [1.0 + i for i in range(half)],
        }
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with no_init_weights():
            model = Phi3ForCausalLM(Phi3Config(bos_token_id=1, eos_token_id=3, pad_token_id=3, **fields))
    finally:
        torch.set_default_dtype(before)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, fields["hidden_size"] ** -0.5) if weight.ndim > 1 else weight.normal_(1, 0.1)
    model.tie_weights()
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return folder
