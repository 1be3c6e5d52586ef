"""A checkpoint and its conversion, with both tokenizers: transformers' and the logged model's."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.checkout import TINY
from tests.checkpoints.phi_tokenizers import KINDS, make_tokenizer_checkpoint

if TYPE_CHECKING:
    from steps.chat.runtime.tokenizer import ChatTokenizer


@dataclass
class Pair:
    """A checkpoint and its conversion, with the tokenizers of both."""

    checkpoint: Path
    converted: Path
    reference: Any  # transformers' tokenizer
    runtime: "ChatTokenizer"

    def expected(self, text: str) -> list[int]:
        """Return transformers' tokens of a text."""
        return self.reference(text, add_special_tokens=False, verbose=False)["input_ids"]

    def streamed(self, tokens: list[int]) -> str:
        """Return the logged model's text of the tokens, decoded one at a time as answers are."""
        stream = self.runtime.stream_decoder()
        return "".join(stream.decode(token) for token in tokens)


@pytest.fixture(scope="package")
def pairs(tmp_path_factory) -> Callable[[str], Pair]:
    """Return the pair of a kind of tokenizer. Each is converted once."""
    from transformers import AutoTokenizer

    from steps.chat.runtime.tokenizer import ChatTokenizer
    from steps.conversion.convert import convert
    from steps.conversion.options import parse_choice

    pairs: dict[str, Pair] = {}

    def pair(kind: str) -> Pair:
        if kind not in pairs:
            folder = tmp_path_factory.mktemp("tokenizer")
            checkpoint = TINY if kind == "tiny-phi3" else make_tokenizer_checkpoint(folder / "checkpoint", kind)
            converted = folder / "onnx"
            convert(checkpoint, converted, parse_choice("genai", "fp32", "", "cpu"))
            reference = AutoTokenizer.from_pretrained(checkpoint)
            pairs[kind] = Pair(checkpoint, converted, reference, ChatTokenizer(converted, "special"))
        return pairs[kind]

    return pair


@pytest.fixture(params=KINDS)
def pair(request, pairs) -> Pair:
    """Return the pair of each kind of tokenizer in turn."""
    return pairs(request.param)
