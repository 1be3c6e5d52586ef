"""Small tokenizers of the same make as the published Phi tokenizers, in checkpoints with random weights.

The published files are not here. What they contain was read in microsoft/onnxruntime-extensions at 319f8d2
(test/data/phi-3, phi-3-mini and phi-4-mini), which holds Microsoft's files. The comparisons in tests/conversion had the
same outcome with those files, and with the public o200k_base vocabulary for Phi-4-mini.
"""

import itertools
import json
import re
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, trainers

from steps.conversion.tokenizer_check import CORPUS

_TURN = "{{'<|%s|>\n' + message['content'] + '<|end|>\n'}}"
_PHI3_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'system'%s %}"
    + _TURN.replace("%s", "system")
    + "{% elif message['role'] == 'user' %}"
    + _TURN.replace("%s", "user")
    + "{% elif message['role'] == 'assistant' %}"
    + _TURN.replace("%s", "assistant")
    + "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
TEMPLATES = {
    "phi-3-mini at its release": (
        "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') %}{{'<|user|>' + '\n' + "
        "message['content'] + '<|end|>' + '\n' + '<|assistant|>' + '\n'}}{% elif (message['role'] == 'assistant') %}"
        "{{message['content'] + '<|end|>' + '\n'}}{% endif %}{% endfor %}"
    ),
    "phi-3-mini": _PHI3_TEMPLATE.replace("%s", ""),
    "phi-3.5-mini": _PHI3_TEMPLATE.replace("%s", " and message['content']"),
    "phi-4-mini": (
        "{% for message in messages %}{% if message['role'] == 'system' and 'tools' in message and message['tools'] is "
        "not none %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|tool|>' + message['tools'] + "
        "'<|/tool|>' + '<|end|>' }}{% else %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}"
    ),
}
# GPT-4o's pre-tokenizer, as tokenizer.json files state it.
GPT4O_SPLIT = "|".join(
    [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)
_TEXT = "".join(CORPUS.values()) + "f();\n// note\n/* note */\n//\nstone data dernier start there select devices\n" * 9


KINDS = [*TEMPLATES, "tiny-phi3"]  # the published ones, and the shipped checkpoint's


def _added(content: str, id_: int, *, rstrip: bool = False, special: bool = True) -> dict:
    flags = {"single_word": False, "lstrip": False, "rstrip": rstrip, "normalized": False, "special": special}
    return {"id": id_, "content": content, **flags}


def _sentencepiece(rstrip: bool) -> dict:
    """Return a tokenizer.json as Llama's SentencePiece model is converted: no pre-tokenizer, bytes for the unknown."""
    first = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    bpe = Tokenizer(models.BPE())
    # No published token mixes words, letters and signs, or anything with a digit or a combining mark.
    pieces = r"▁?\p{L}+|\p{M}|\p{N}|▁?[^\p{L}\p{M}\p{N}▁]+|▁"
    bpe.pre_tokenizer = pre_tokenizers.Split(Regex(pieces), "isolated")
    texts = re.split(r"[\x00-\x1f가-힣\U00010000-\U0010ffff]", _TEXT.replace(" ", "▁"))  # the rest becomes bytes
    trainer = trainers.BpeTrainer(vocab_size=1100, special_tokens=first, show_progress=False)
    bpe.train_from_iterator(itertools.chain(texts, ["▁", "\u00a0"] * 50), trainer)
    model = json.loads(bpe.to_str())["model"]
    vocab, merges = model["vocab"], model["merges"]
    for left, right in (("▁", "▁"), ("▁▁", "▁▁"), ("▁▁▁▁", "▁▁▁▁"), ("▁▁", "▁"), ("▁", "▁▁"), ("▁", "\u00a0")):
        vocab.setdefault(left + right, len(vocab))  # runs of spaces come last
        merges.append([left, right])
    names = ["assistant", *(f"placeholder{i}" for i in range(1, 5)), "system", "end", "placeholder5", "user"]
    special = [
        _added(name, i, rstrip=rstrip and i == 2, special=not (rstrip and i == 2)) for i, name in enumerate(first[:3])
    ]
    special.append(_added("<|endoftext|>", len(vocab)))
    special += [_added(f"<|{name}|>", len(vocab) + 1 + i, rstrip=rstrip) for i, name in enumerate(names)]
    space = {"String": " "}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": {
            "type": "Sequence",
            "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": space, "content": "▁"}],
        },
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": model | {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True},
    }


def _byte_level() -> dict:
    """Return a tokenizer.json as Phi-4-mini's: GPT-4o's pre-tokenizer, then byte-level BPE."""
    bpe = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    split = pre_tokenizers.Split(Regex(GPT4O_SPLIT), "removed", invert=True)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1100, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator([_TEXT], trainer)
    names = ["endoftext", "endofprompt", "assistant", "end", "user", "system", "tool", "/tool"]
    for name in names:
        token = AddedToken(f"<|{name}|>", rstrip=not name.startswith("endof"), normalized=False)
        bpe.add_tokens([token]) if "tool" in name else bpe.add_special_tokens([token])
    content = json.loads(bpe.to_str())
    level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
    return content | {"decoder": level, "post_processor": level}


def _save(folder: Path, tokenizer: dict, config: dict, template: str) -> None:
    """Write the files of a tokenizer."""
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    added = {str(token["id"]): {k: v for k, v in token.items() if k != "id"} for token in tokenizer["added_tokens"]}
    shared = {"clean_up_tokenization_spaces": False, "model_max_length": 4096, "chat_template": template}
    end = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "added_tokens_decoder": added}
    (folder / "tokenizer_config.json").write_text(json.dumps(shared | end | config), encoding="utf-8")


def _save_weights(folder: Path) -> None:
    """Write a Phi-3 of one layer with random weights, for the tokenizer of the folder."""
    # Imported here, because KINDS is read where no test needs torch.
    import torch
    from transformers import Phi3Config, Phi3ForCausalLM

    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    size = 1 + max(*tokenizer["model"]["vocab"].values(), *(token["id"] for token in tokenizer["added_tokens"]))
    ids = {f"{name}_token_id": tokenizer["added_tokens"][-1]["id"] for name in ("bos", "eos", "pad")}
    torch.manual_seed(0)
    Phi3ForCausalLM(
        Phi3Config(
            vocab_size=size,
            hidden_size=32,
            intermediate_size=48,  # twice it, or hidden_size, must not be vocab_size: see train_tiny_phi3.py
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=4096,
            original_max_position_embeddings=4096,
            **ids,
        )
    ).save_pretrained(folder)


def save_tokenizer(folder: Path, kind: str) -> Path:
    """Write the tokenizer and the chat template of a kind, a key of TEMPLATES. Return the folder."""
    template = TEMPLATES[kind]
    if kind == "phi-4-mini":
        config: dict[str, Any] = {
            "tokenizer_class": "GPT2Tokenizer",
            "bos_token": "<|endoftext|>",
            "unk_token": "<|endoftext|>",
        }
        _save(folder, _byte_level(), config | {"add_prefix_space": False, "add_bos_token": False}, template)
    else:
        release = kind == "phi-3-mini at its release"
        config = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "unk_token": "<unk>", "legacy": False}
        _save(folder, _sentencepiece(rstrip=not release), config | {"add_bos_token": release}, template)
    return folder


def make_tokenizer_checkpoint(folder: Path, kind: str) -> Path:
    """Write a checkpoint with the tokenizer and the chat template of a kind, a key of TEMPLATES. Return the folder."""
    _save_weights(save_tokenizer(folder, kind))
    return folder
