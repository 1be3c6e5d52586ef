"""Save checkpoints as transformers 5 writes them, with transformers 5's own logits and tokens.

Usage, in an environment with transformers 5: python save_with_transformers5.py TINY_PHI3 OUT [TOKENIZER ...]

- OUT/tiny: the shipped checkpoint, loaded and saved again.
- OUT/longrope: Phi-4-mini's geometry at reduced size, with random weights: LongRoPE, tied embeddings, partial rotary
  embeddings.
- OUT/NAME for each folder TOKENIZER: its tokenizer, loaded and saved again.

In the first two, logits.npy holds the float32 logits [50, vocabulary] of the tokens 10 to 59. In all, tokens.json holds
the tokens of each text in TEXTS.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, Phi3Config, Phi3ForCausalLM

HEADS, HIDDEN, ROTARY = 6, 384, 0.75
TEXTS = [
    "What is the capital of Côte d'Ivoire?\n\t12,5 €",
    "<|user|>\nHello<|end|>\n<|assistant|>\n",
    "  def f(x):\n        return {'a': [1, 22, 333]}  ",
    "你好，世界 नमस्ते 👩‍👩‍👧 ﬁ",
]


def save(model: Phi3ForCausalLM, tiny: Path, folder: Path) -> None:
    """Save a model and the shipped tokenizer, and the logits of the saved model in float32."""
    model.save_pretrained(folder)
    save_tokenizer(tiny, folder)
    saved = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        np.save(folder / "logits.npy", saved(torch.arange(10, 60)[None]).logits.numpy()[0])


def save_tokenizer(source: Path, folder: Path) -> None:
    """Load a tokenizer and save it again, with its tokens of TEXTS."""
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.save_pretrained(folder)
    (folder / "tokens.json").write_text(json.dumps([[text, tokenizer(text)["input_ids"]] for text in TEXTS]))


def longrope() -> Phi3ForCausalLM:
    """Return a small Phi-3 with Phi-4-mini's kinds of layers and random weights."""
    pairs = int(HIDDEN // HEADS * ROTARY) // 2
    factors = {"short_factor": [1.0 + i / 10 for i in range(pairs)], "long_factor": [1.0 + i for i in range(pairs)]}
    config = Phi3Config(
        vocab_size=1000,
        hidden_size=HIDDEN,
        intermediate_size=768,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=2,
        max_position_embeddings=131072,
        original_max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=3,
        pad_token_id=3,
        partial_rotary_factor=ROTARY,
        rope_scaling={"type": "longrope", **factors},
    )
    torch.manual_seed(0)
    model = Phi3ForCausalLM(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, HIDDEN**-0.5) if weight.ndim > 1 else weight.normal_(1, 0.1)
            weight.data = weight.data.to(torch.bfloat16)
    model.config.dtype = torch.bfloat16
    model.tie_weights()
    return model


def main() -> None:
    """Save all."""
    if int(transformers.__version__.split(".")[0]) < 5:
        raise SystemExit(f"transformers {transformers.__version__} is installed; expected 5 or later")
    tiny, out = Path(sys.argv[1]), Path(sys.argv[2])
    save(Phi3ForCausalLM.from_pretrained(tiny, dtype=torch.bfloat16), tiny, out / "tiny")
    save(longrope(), tiny, out / "longrope")
    for tokenizer in map(Path, sys.argv[3:]):
        save_tokenizer(tokenizer, out / tokenizer.name)


if __name__ == "__main__":
    main()
