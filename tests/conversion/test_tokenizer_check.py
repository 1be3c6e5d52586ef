"""The check of a conversion's tokens: what it refuses, and which differences of onnxruntime-genai it names."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from steps.common.errors import StepError
from steps.conversion.tokenizer_check import ALL_TEXTS, compare_tokenizers
from tests.checkpoints.phi_tokenizers import GPT4O_SPLIT, KINDS
from tests.conversion.conftest import Pair

pytestmark = pytest.mark.model

LLAMA = {
    "several spaces before a digit",
    "several spaces before a bracket",
    "several spaces before Chinese",
    "an apostrophe between letters, before s, t, m, d, re, ve or ll",
    "U+00A0 after a space",
    "U+0085",
    "U+2581, the tokenizer's own sign for a space",
    "U+0000, where onnxruntime-genai ends the prompt",
}
DIFFERENCES = {
    "phi-3-mini at its release": LLAMA,
    "phi-3-mini": LLAMA | {"U+3000 at the start of a message"},
    "phi-3.5-mini": LLAMA | {"U+3000 at the start of a message"},
    "phi-4-mini": {
        "a line that begins with a slash, after punctuation",
        "U+3000 at the start of a message",
        "U+0085",
        "U+0000, where onnxruntime-genai ends the prompt",
    },
    "tiny-phi3": {"U+0000, where onnxruntime-genai ends the prompt"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_check_names_what_onnxruntime_genai_reads_otherwise(pairs, kind):
    pair = pairs(kind)
    result = compare_tokenizers(pair.checkpoint, pair.converted)
    assert result.texts == len(ALL_TEXTS)
    assert set(result.genai_differences) == DIFFERENCES[kind]


def _edited(pair: Pair, tmp_path: Path, edit: Callable[[dict], dict]) -> tuple[Path, Path]:
    """Return copies of the checkpoint and of the converted folder, both with another tokenizer.json."""
    folders = (
        shutil.copytree(pair.checkpoint, tmp_path / "checkpoint"),
        shutil.copytree(pair.converted, tmp_path / "edited"),
    )
    content = edit(json.loads((pair.converted / "tokenizer.json").read_text(encoding="utf-8")))
    for folder in folders:
        (folder / "tokenizer.json").write_text(json.dumps(content, ensure_ascii=False), "utf-8")
    return folders


def test_a_pre_tokenizer_that_onnxruntime_genai_does_not_know_is_a_note(pairs, tmp_path):
    """The same pattern in tiktoken's spelling: onnxruntime-genai makes single bytes of words, or fails."""
    spelt = GPT4O_SPLIT.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)?", "('s|'S|'t|'T|'re|'RE|'ve|'VE|'m|'M|'ll|'LL|'d|'D)?")

    def edit(content: dict) -> dict:
        content["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = spelt
        return content

    result = compare_tokenizers(*_edited(pairs("phi-4-mini"), tmp_path, edit))
    assert "English" in result.genai_differences


def test_a_space_before_the_first_word_only_is_a_note(pairs, tmp_path):
    """Llama's later form, Metaspace: onnxruntime-genai puts a space after every special token all the same."""
    later = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    edit = {"normalizer": None, "pre_tokenizer": later}
    result = compare_tokenizers(*_edited(pairs("phi-3-mini"), tmp_path, lambda content: content | edit))
    assert "English" in result.genai_differences


def test_a_tokenizer_that_onnxruntime_genai_cannot_load_is_a_note(pair, tmp_path, monkeypatch):
    folder = shutil.copytree(pair.converted, tmp_path / "edited")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"tokenizer_class": "NoSuchTokenizer"}))
    (note,) = compare_tokenizers(pair.checkpoint, folder).genai_differences
    assert note.startswith("every text: it cannot load this tokenizer (")


def test_another_chat_template_is_refused(pair, tmp_path):
    folder = shutil.copytree(pair.converted, tmp_path / "edited")
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text(encoding="utf-8").replace("'<|end|>", "' <|end|>"), encoding="utf-8")
    with pytest.raises(StepError, match="in the chat template, from token .* on it makes"):
        compare_tokenizers(pair.checkpoint, folder)


def test_missing_merges_are_refused(pair, tmp_path):
    def edit(content: dict) -> dict:
        content["model"]["merges"] = content["model"]["merges"][:100]
        return content

    _, folder = _edited(pair, tmp_path, edit)
    with pytest.raises(StepError, match="from token .* on it makes"):
        compare_tokenizers(pair.checkpoint, folder)
