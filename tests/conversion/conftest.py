"""The two tokenizers that the tests compare: transformers' for a checkpoint, the runtime's for its conversion."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.checkout import TINY
from tests.checkpoints.phi_tokenizers import KINDS, make_tokenizer_checkpoint


@dataclass
class Pair:
    """A checkpoint and its conversion, with the tokenizers of both."""

    checkpoint: Path
    converted: Path
    reference: Any  # transformers' tokenizer
    runtime: Any

    def expected(self, text: str) -> list[int]:
        """Return transformers' tokens of a text."""
        return self.reference(text, add_special_tokens=False, verbose=False)["input_ids"]

    def encoded(self, text: str) -> list[int]:
        """Return the runtime's tokens of a text."""
        return [int(token) for token in self.runtime.encode(text)]

    def prompts(self, messages: list[dict], add_generation_prompt: bool = True) -> tuple[str, str]:
        """Return transformers' prompt of a conversation, and the runtime's."""
        return (
            self.reference.apply_chat_template(messages, add_generation_prompt=add_generation_prompt, tokenize=False),
            self.runtime.apply_chat_template(json.dumps(messages), add_generation_prompt=add_generation_prompt),
        )

    def streamed(self, tokens: list[int]) -> str:
        """Return the runtime's text of the tokens, decoded one at a time as answers are."""
        stream = self.runtime.create_stream()
        return "".join(stream.decode(token) for token in tokens)


@pytest.fixture(scope="package")
def pairs(tmp_path_factory) -> Callable[[str], Pair]:
    """Return the pair of a kind of tokenizer. Each is converted once."""
    from transformers import AutoTokenizer

    from steps.chat.runtime.tokenizer import load_tokenizer
    from steps.conversion.convert import convert
    from steps.conversion.options import parse_choice

    pairs: dict[str, Pair] = {}

    def pair(kind: str) -> Pair:
        if kind not in pairs:
            folder = tmp_path_factory.mktemp("tokenizer")
            checkpoint = TINY if kind == "tiny-phi3" else make_tokenizer_checkpoint(folder / "checkpoint", kind)
            converted = folder / "onnx"
            convert(checkpoint, converted, parse_choice("genai", "fp32", "", "cpu"))
            pairs[kind] = Pair(
                checkpoint, converted, AutoTokenizer.from_pretrained(checkpoint), load_tokenizer(converted)
            )
        return pairs[kind]

    return pair


@pytest.fixture(params=KINDS)
def pair(request, pairs) -> Pair:
    """Return the pair of each kind of tokenizer in turn."""
    return pairs(request.param)
