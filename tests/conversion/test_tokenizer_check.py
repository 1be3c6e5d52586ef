"""The check of the runtime's tokenizer: which conversions pass, which differences it names, what it refuses."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from steps.common.errors import StepError
from steps.conversion.tokenizer_check import CORPUS, compare_tokenizers
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
    "U+0000, where the runtime ends the prompt",
}
DIFFERENCES = {
    "phi-3-mini at its release": LLAMA,
    "phi-3-mini": LLAMA | {"U+3000 at the start of a message"},
    "phi-3.5-mini": LLAMA | {"U+3000 at the start of a message"},
    "phi-4-mini": {
        "a line that begins with a slash, after punctuation",
        "U+3000 at the start of a message",
        "U+0085",
        "U+0000, where the runtime ends the prompt",
    },
    "tiny-phi3": {"U+0000, where the runtime ends the prompt"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_check_passes_and_names_the_known_differences(pairs, kind):
    pair = pairs(kind)
    result = compare_tokenizers(pair.checkpoint, pair.converted)
    assert result.prompts == len(CORPUS)
    assert set(result.known_differences) == DIFFERENCES[kind]


def _edited(pair: Pair, tmp_path: Path, edit: Callable[[dict], dict]) -> Path:
    """Return a copy of the converted folder with another tokenizer.json."""
    folder = shutil.copytree(pair.converted, tmp_path / "edited")
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(edit(json.loads(path.read_text(encoding="utf-8"))), ensure_ascii=False), "utf-8")
    return folder


def test_a_pre_tokenizer_that_the_runtime_does_not_know_is_refused(pairs, tmp_path):
    """The same pattern in tiktoken's spelling: the runtime makes single bytes of words, or fails."""
    pair = pairs("phi-4-mini")
    spelt = GPT4O_SPLIT.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)?", "('s|'S|'t|'T|'re|'RE|'ve|'VE|'m|'M|'ll|'LL|'d|'D)?")

    def edit(content: dict) -> dict:
        content["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = spelt
        return content

    with pytest.raises(StepError, match=r"does not read text as transformers does \(English: "):
        compare_tokenizers(pair.checkpoint, _edited(pair, tmp_path, edit))


def test_a_tokenizer_with_a_space_before_the_first_word_only_is_refused(pairs, tmp_path):
    """Llama's later form, Metaspace: the runtime puts a space after every special token all the same."""
    pair = pairs("phi-3-mini")
    later = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    checkpoint = shutil.copytree(pair.checkpoint, tmp_path / "checkpoint")
    folder = _edited(pair, tmp_path, lambda content: content | {"normalizer": None, "pre_tokenizer": later})
    shutil.copy(folder / "tokenizer.json", checkpoint)
    with pytest.raises(StepError, match="from token 1 on it makes"):
        compare_tokenizers(checkpoint, folder)


def test_another_chat_template_is_refused(pair, tmp_path):
    folder = shutil.copytree(pair.converted, tmp_path / "edited")
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text(encoding="utf-8").replace("'<|end|>", "' <|end|>"), encoding="utf-8")
    with pytest.raises(StepError, match="its chat template makes"):
        compare_tokenizers(pair.checkpoint, folder)


def test_missing_merges_are_refused(pair, tmp_path):
    def edit(content: dict) -> dict:
        content["model"]["merges"] = content["model"]["merges"][:100]
        return content

    with pytest.raises(StepError, match="from token .* on it makes"):
        compare_tokenizers(pair.checkpoint, _edited(pair, tmp_path, edit))
