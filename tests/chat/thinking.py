"""Reasoning models made of the shipped one: only the tokenizer or the chat template of a converted folder changes.

The shipped model answers "Count from 1 to 40." with "1 2 3 4 ...". With other names for its tokens "1" and " 7", the
same tokens are the text "<think> 2 3 4 5 6</think> 8 9 ...".
"""

import json
import shutil
from pathlib import Path

OPENS = "\n<think>\n"  # at the end of a generation prompt
_RENAMED = {"1": "<think>", "Ġ7": "</think>"}


def with_tags(converted: Path, target: Path, special: bool) -> Path:
    """Return a copy whose model opens a thought itself.

    Args:
        special: whether the tags are special tokens, as Phi-4-reasoning's; else they are plain text, as
            Phi-4-mini-reasoning's.
    """
    shutil.copytree(converted, target)
    file = target / "tokenizer.json"
    tokenizer = json.loads(file.read_text(encoding="utf-8"))
    vocabulary, merges = tokenizer["model"]["vocab"], tokenizer["model"]["merges"]
    unused = sorted(vocabulary, key=vocabulary.get)[-len(_RENAMED) :]
    for (name, tag), last in zip(_RENAMED.items(), reversed(unused), strict=True):
        assert "".join(merges.pop()) == last, "the last merge makes the last token"
        token, free = vocabulary[name], vocabulary.pop(last)
        vocabulary |= {tag: token, name: free}  # a prompt can still have the name
        if special:
            flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
            tokenizer["added_tokens"].append({"id": token, "content": tag} | flags)
    tokenizer["added_tokens"].sort(key=lambda added: added["id"])
    file.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    return target


def with_opening_template(converted: Path, target: Path) -> Path:
    """Return a copy whose chat template opens the thought: the model writes it without the opening tag."""
    shutil.copytree(converted, target)
    file = target / "chat_template.jinja"
    template = file.read_text(encoding="utf-8")
    changed = template.replace("'<|assistant|>\n' }}{% else", f"'<|assistant|>{OPENS}' }}}}{{% else")
    assert changed != template
    file.write_text(changed, encoding="utf-8")
    return target
