"""Variants of the shipped checkpoint with other files beside the weights: configs, tokenizers, templates."""

import json
from pathlib import Path

from tests.checkpoints.tiny import drop, edit_json, set_config

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def transformers5_config(folder: Path) -> None:
    rope = {"rope_theta": 10000.0, "rope_type": "default", "partial_rotary_factor": 1.0}
    old = ("rope_theta", "rope_scaling", "partial_rotary_factor")
    set_config(folder, old, rope_parameters=rope, transformers_version="5.24.0")


def transformers5_tokenizer(folder: Path) -> None:
    drop(folder / "tokenizer_config.json", "added_tokens_decoder")
    changes = {"tokenizer_class": "TokenizersBackend", "backend": "tokenizers", "extra_special_tokens": ["<|user|>"]}
    edit_json(folder / "tokenizer_config.json", **changes)
    (folder / "special_tokens_map.json").unlink()


def tokenizer_knows_the_end(folder: Path) -> None:
    """TRL's usual setup: the tokenizer's end token is <|end|>; config.json still has the base model's."""
    (folder / "generation_config.json").unlink()
    edit_json(folder / "tokenizer_config.json", eos_token="<|end|>")


def no_generation_config(folder: Path) -> None:
    (folder / "generation_config.json").unlink()


def no_end_token(folder: Path) -> None:
    (folder / "generation_config.json").unlink()
    (folder / "chat_template.jinja").unlink()
    drop(folder / "config.json", "eos_token_id")
    drop(folder / "tokenizer_config.json", "eos_token")


def no_tokenizer(folder: Path) -> None:
    for name in (*_TOKENIZER_FILES, "chat_template.jinja"):
        (folder / name).unlink()


def sentencepiece_only(folder: Path) -> None:
    """The tokenizer in SentencePiece's format alone."""
    no_tokenizer(folder)
    (folder / "tokenizer.model").write_bytes(b"\n\x0b\n\x05<unk>\x15\0\0\0\0\x18\x02")


def damaged_merges(folder: Path) -> None:
    """GPT-2's older format, which transformers cannot read."""
    vocabulary_and_merges(folder)
    (folder / "merges.txt").write_text("#version: 0.2\nno-such-token neither\n")


def vocabulary_and_merges(folder: Path) -> None:
    """GPT-2's older format, from which transformers builds tokenizer.json."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    merges = ["#version: 0.2", *(" ".join(merge) for merge in tokenizer["model"]["merges"])]
    (folder / "vocab.json").write_text(json.dumps(tokenizer["model"]["vocab"]))
    (folder / "merges.txt").write_text("\n".join(merges) + "\n")
    (folder / "tokenizer.json").unlink()
    edit_json(folder / "tokenizer_config.json", tokenizer_class="GPT2Tokenizer")


def damaged_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"model": {"type": "BPE"}}')


def no_chat_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


def more_tokens_than_rows(folder: Path) -> None:
    """Tokens were added to the tokenizer, and the embedding was not resized."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    token = {"id": 770, "content": "<tool_call>", "single_word": False, "lstrip": False, "rstrip": False}
    padding = {"id": 768, "content": "<tool>"}, {"id": 769, "content": "</tool>"}
    rest = token | {"normalized": False, "special": True}
    tokenizer["added_tokens"] += [*(rest | other for other in padding), rest]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def byte_order_marks(folder: Path) -> None:
    for file in folder.glob("*.json"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())


def windows_line_ends(folder: Path) -> None:
    for name in ("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json"):
        file = folder / name
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))


def not_a_number(folder: Path) -> None:
    edit_json(folder / "config.json", initializer_range=float("nan"))


def files_of_a_trainer(folder: Path) -> None:
    """What the trainer leaves beside the model; NaN is usual in it, and no step reads it."""
    (folder / "trainer_state.json").write_text('{"best_metric": NaN}')
    (folder / "all_results.json").write_text("[1]")


def auto_map(folder: Path) -> None:
    """A fine-tune of the published Phi-3, whose repository has Python files."""
    code = {"AutoConfig": "configuration_phi3.Phi3Config", "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM"}
    set_config(folder, auto_map=code)
    for name in ("configuration_phi3.py", "modeling_phi3.py"):
        (folder / name).write_text(f"open('{folder}/it-ran', 'w').close()")
