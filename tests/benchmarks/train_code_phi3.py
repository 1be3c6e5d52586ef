#!/usr/bin/env python3
"""Train a Phi-3 of 15M parameters on the source of Python's standard library, to measure what quantisation costs.

Random weights have nothing to lose, and params/tiny-phi3 knows its answers by heart. This model predicts text that it
has not seen, and has the weights of a trained model.

Output: OUT is a checkpoint, with `heldout.txt` beside its files: every tenth module, which was not trained on.

Usage: python tests/benchmarks/train_code_phi3.py OUT [--steps 300]       (under 15 minutes on 2 cores)
       The smallest run: python tests/benchmarks/train_code_phi3.py /tmp/code-phi3 --steps 2
"""

import argparse
import sys
import sysconfig
import time
from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import Phi3Config, Phi3ForCausalLM, PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).parents[2]))
from steps.chat.runtime.cpus import usable_cpus  # noqa: E402

VOCABULARY, LENGTH, BATCH = 4096, 128, 16
SPECIAL = ["<s>", "</s>", "<unk>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]
TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


def read_corpus() -> tuple[str, str]:
    """Return the standard library's modules without tests: (training text, held-out text)."""
    files = sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py"))
    files = [file for file in files if not {"test", "tests", "site-packages", "idlelib"} & set(file.parts)]
    texts = [file.read_text(encoding="utf-8", errors="ignore") for file in files]
    held_out = [text for number, text in enumerate(texts) if number % 10 == 0]
    return "\n".join(text for number, text in enumerate(texts) if number % 10), "\n".join(held_out)


def train_tokenizer(text: str) -> ByteLevelBPETokenizer:
    """Train a byte-level BPE on a text."""
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator([text], vocab_size=VOCABULARY, special_tokens=SPECIAL, show_progress=False)
    return tokenizer


def make_model() -> Phi3ForCausalLM:
    """Return a Phi-3 of 15M parameters with random weights."""
    return Phi3ForCausalLM(
        Phi3Config(
            vocab_size=VOCABULARY,
            hidden_size=512,
            intermediate_size=1024,
            num_hidden_layers=4,
            num_attention_heads=8,
            num_key_value_heads=8,
            max_position_embeddings=1024,
            original_max_position_embeddings=1024,
            bos_token_id=0,
            eos_token_id=6,
            pad_token_id=1,
            embd_pdrop=0.0,
            resid_pdrop=0.0,
        )
    )


def train(model: Phi3ForCausalLM, tokens: torch.Tensor, steps: int) -> None:
    """Train on random pieces of the text, and print the loss."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps, pct_start=0.1)
    start = time.monotonic()
    for step in range(steps):
        starts = torch.randint(0, len(tokens) - LENGTH, (BATCH,))
        batch = torch.stack([tokens[first : first + LENGTH] for first in starts])
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        if step % 20 == 0 or step == steps - 1:
            print(f"step {step}: loss {loss.item():.3f}, {time.monotonic() - start:.0f} s", flush=True)


def save(model: Phi3ForCausalLM, tokenizer: ByteLevelBPETokenizer, out: Path) -> None:
    """Write the checkpoint: weights in bfloat16, and the tokenizer with a chat template."""
    model.bfloat16()
    model.save_pretrained(out)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer._tokenizer, bos_token="<s>", eos_token="<|end|>")
    fast.chat_template = TEMPLATE
    fast.add_special_tokens({"additional_special_tokens": SPECIAL[3:]})
    fast.save_pretrained(out)


def main() -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(usable_cpus())
    training, held_out = read_corpus()
    tokenizer, model = train_tokenizer(training), make_model()
    train(model, torch.tensor(tokenizer.encode(training).ids), args.steps)
    save(model, tokenizer, args.out)
    (args.out / "heldout.txt").write_text(held_out, encoding="utf-8")


if __name__ == "__main__":
    main()
