#!/usr/bin/env python3
"""Train the shipped checkpoint, params/tiny-phi3, from params/evalsets/tiny-qa.jsonl.

The checkpoint is a Phi-3 of 1.7M parameters (hidden size 192, 4 layers, 6 heads, 3 KV heads). It has a byte-level BPE
of 768 tokens and Phi-3's own chat template. It is small enough to live in the repository. It is a test model: it
answers the questions of its set exactly, and knows nothing else.

Usage: python tests/checkpoints/train_tiny_phi3.py OUT [--steps N]

It takes about two minutes on 2 cores. If the trained model does not answer the whole set exactly, the script writes
nothing and exits with an error. The same torch, CPU type and thread count give the same bytes. Others round
differently.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, cast

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import Phi3Config, Phi3ForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

QA = Path(__file__).parents[2] / "params" / "evalsets" / "tiny-qa.jsonl"
SPECIAL = ["<unk>", "<s>", "</s>", "<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>"]
# The template of microsoft/Phi-3-mini-4k-instruct's tokenizer_config.json.
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\n' + message['content'] + "
    "'<|end|>\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}"
    "{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
CONTEXT = 2048
NO_LABEL = -100  # the label that the loss ignores
LONG = 48  # tokens of a question and its answer; longer examples get batches of their own
BATCH = 64  # examples


def read_pairs(path: Path = QA) -> list[tuple[str, str]]:
    """Return (question, answer) for each line of a JSONL evaluation set."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(row["messages"][0]["content"], row["expected"]) for row in rows]


def train_tokenizer(texts: list[str], vocab_size: int = 768) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE on texts. It has Phi-3's special tokens and chat template."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<s>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        unk_token="<unk>",
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def new_model(tokenizer: PreTrainedTokenizerFast) -> Phi3ForCausalLM:
    """Return an untrained Phi-3 with grouped-query attention.

    The head size is 32, because ONNX Runtime's CPU kernel needs a multiple of 16.
    """
    ids = tokenizer.convert_tokens_to_ids
    model = Phi3ForCausalLM(
        Phi3Config(
            vocab_size=len(tokenizer),
            hidden_size=192,
            # If twice this size were vocab_size, the genai builder would take the MLP for the head.
            intermediate_size=416,
            num_hidden_layers=4,
            num_attention_heads=6,
            num_key_value_heads=3,
            max_position_embeddings=CONTEXT,
            original_max_position_embeddings=CONTEXT,  # another value would mean LongRoPE
            bos_token_id=ids("<s>"),
            eos_token_id=ids("<|endoftext|>"),
            pad_token_id=ids("<|endoftext|>"),
        )
    )
    assert model.generation_config is not None
    model.generation_config.eos_token_id = [ids("<|endoftext|>"), ids("<|end|>")]
    return model


def encode(tokenizer: PreTrainedTokenizerFast, question: str) -> list[int]:
    """Return the token IDs of a prompt with one user message."""
    messages = [{"role": "user", "content": question}]
    return cast(list[int], tokenizer.apply_chat_template(messages, add_generation_prompt=True))


def train(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, pairs: list[tuple[str, str]], steps: int) -> None:
    """Train with AdamW and a one-cycle schedule over the whole set. The loss counts the answers only.

    Every fourth batch has only the few long examples. To pad all batches to the longest would triple the time.
    """
    inputs, labels = [], []
    for question, answer in pairs:
        prompt, target = encode(tokenizer, question), tokenizer.encode(answer + "<|end|>", add_special_tokens=False)
        inputs.append(torch.tensor(prompt + target))
        labels.append(torch.tensor([NO_LABEL] * len(prompt) + target))
    short = [i for i, ids in enumerate(inputs) if len(ids) <= LONG]
    long = [i for i, ids in enumerate(inputs) if len(ids) > LONG]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps, pct_start=0.1)
    generator = torch.Generator().manual_seed(0)
    model.train()
    with tqdm(total=steps, unit="step", disable=not sys.stderr.isatty()) as bar:
        for step in range(steps):
            rows = long if step % 4 == 3 else short
            batch = [rows[i] for i in torch.randperm(len(rows), generator=generator)[:BATCH].tolist()]
            ids = pad_sequence([inputs[i] for i in batch], True, padding_value=tokenizer.pad_token_id)
            target = pad_sequence([labels[i] for i in batch], True, padding_value=NO_LABEL)
            loss = model(input_ids=ids, labels=target).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            bar.update()
            bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)


def exact_answers(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, pairs: list[tuple[str, str]]) -> float:
    """Return the share of the questions, 0 to 1, that greedy decoding answers to the letter."""
    model.eval()
    right = 0
    generate: Any = model.generate
    for question, answer in pairs:
        prompt = torch.tensor([encode(tokenizer, question)])
        output: torch.Tensor = generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=128, do_sample=False
        )
        right += tokenizer.decode(output[0, prompt.shape[1] :], skip_special_tokens=True) == answer
    return right / len(pairs)


def main() -> None:
    """Train, check and write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=600)
    args = parser.parse_args()
    torch.manual_seed(0)
    pairs = read_pairs()
    tokenizer = train_tokenizer([text for pair in pairs for text in pair])
    model = new_model(tokenizer)
    train(model, tokenizer, pairs, args.steps)
    with tempfile.TemporaryDirectory() as folder:
        model.bfloat16().save_pretrained(folder)
        trained = Phi3ForCausalLM.from_pretrained(folder, dtype=torch.float32)  # as bfloat16 rounded it
        exact = exact_answers(trained, tokenizer, pairs)
        print(f"{exact:.1%} of {len(pairs)} questions answered exactly after {args.steps} steps")
        if exact < 1:
            raise SystemExit("not written: fewer than all answers are exact; train longer (--steps)")
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)


if __name__ == "__main__":
    main()
