"""Tokenizers of makes that Phi does not have, but that fine-tunes and converted models have."""

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from tests.checkpoints.phi_tokenizers import _TEXT, TEMPLATES, save_tokenizer

_NAMES = ["<unk>", "<s>", "</s>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
OTHER_KINDS = [
    "phi-4",
    "gpt-2 with single digits",
    "unigram",
    "unigram without bytes",
    "50 added tokens",
    "metaspace first",
]
ALL_KINDS = [*TEMPLATES, *OTHER_KINDS]
_PHI4_NAMES = [
    "dummy_0",
    "endoftext",
    "fim_prefix",
    "fim_middle",
    "fim_suffix",
    "im_start",
    "im_end",
    "im_sep",
    "endofprompt",
]
_PHI4_TURN = "{{'<|im_start|>%s<|im_sep|>' + message['content'] + '<|im_end|>'}}"
PHI4_TEMPLATE = (
    "{% for message in messages %}{% if (message['role'] == 'system') %}"
    + _PHI4_TURN.replace("%s", "system")
    + "{% elif (message['role'] == 'user') %}"
    + _PHI4_TURN.replace("%s", "user")
    + "{% elif (message['role'] == 'assistant') %}"
    + _PHI4_TURN.replace("%s", "assistant")
    + "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}"
)
# GPT-4's pre-tokenizer, as tokenizer.json files state it.
GPT4_SPLIT = "|".join(
    [
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)


def _digits() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1100, initial_alphabet=alphabet, special_tokens=_NAMES, show_progress=False
    )
    tokenizer.train_from_iterator([_TEXT], trainer)
    return tokenizer


def _phi4() -> Tokenizer:
    """Return a tokenizer as Phi-4's: GPT-4's pre-tokenizer, byte-level BPE, special tokens that take spaces away."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(GPT4_SPLIT), "removed", invert=True)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1100, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([_TEXT], trainer)
    names = [f"<|{name}|>" for name in _PHI4_NAMES]
    tokenizer.add_special_tokens([AddedToken(name, lstrip=True, rstrip=True, normalized=False) for name in names])
    return tokenizer


def _unigram(byte_fallback: bool) -> Tokenizer:
    first = [*_NAMES, *(f"<0x{byte:02X}>" for byte in range(256))] if byte_fallback else _NAMES
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(
        [_TEXT], trainers.UnigramTrainer(vocab_size=900, special_tokens=first, unk_token="<unk>", show_progress=False)
    )
    tokenizer.decoder = decoders.Metaspace()
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = content["added_tokens"][: len(_NAMES)]
    if byte_fallback:
        content["model"]["byte_fallback"] = True
        replace = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
        strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
        content["decoder"] = {
            "type": "Sequence",
            "decoders": [replace, {"type": "ByteFallback"}, {"type": "Fuse"}, strip],
        }
    return Tokenizer.from_str(json.dumps(content))


def save_any_tokenizer(folder: Path, kind: str) -> Path:
    """Write the tokenizer and the chat template of a kind of ALL_KINDS. Return the folder."""
    if kind in TEMPLATES:
        return save_tokenizer(folder, kind)
    if kind == "metaspace first":  # Llama's later form
        save_tokenizer(folder, "phi-3-mini")
        content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        later = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
        text = json.dumps(content | {"normalizer": None, "pre_tokenizer": later}, ensure_ascii=False)
        (folder / "tokenizer.json").write_text(text, encoding="utf-8")
        return folder
    if kind == "phi-4":
        tokenizer = _phi4()
        tokens = {"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>", "pad_token": "<|dummy_0|>"}
    elif kind.startswith("unigram"):
        tokenizer = _unigram(byte_fallback=kind == "unigram")
        tokens = {"bos_token": "<s>", "eos_token": "<|endoftext|>", "unk_token": "<unk>"}
    else:
        tokenizer = _digits()
        tokens = {"bos_token": "<s>", "eos_token": "<|endoftext|>"}
    if kind == "50 added tokens":
        tokenizer.add_special_tokens([AddedToken(f"<tag_{number}>", lstrip=number % 2 == 0) for number in range(20)])
        tokenizer.add_tokens([AddedToken(f"word{number}", single_word=True) for number in range(10)])
        tokenizer.add_tokens([AddedToken(f"<|extra_{number}|>", rstrip=True) for number in range(10)])
        tokenizer.add_tokens([AddedToken(" " * number, normalized=False) for number in range(2, 12)])
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    template = {"chat_template": PHI4_TEMPLATE if kind == "phi-4" else TEMPLATES["phi-3-mini"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(config | tokens | template), encoding="utf-8")
    return folder
