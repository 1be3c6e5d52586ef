"""Separate the thought of a reasoning model from its answer: `<think> thought </think> answer`.

    text       "<think>\\n2 plus 2 is 4.\\n</think>\\n\\nThe answer is 4."
    thought              2 plus 2 is 4.
    answer                                      The answer is 4.

A thought begins where the answer begins with `<think>`, or where the prompt ends with it. It ends at the first
`</think>`. Later tags are text of the answer. A text that does not begin with a thought is the answer as it is.
White space around the thought belongs to the tags.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .template_files import template_sources

if TYPE_CHECKING:
    from .stream_decoder import StreamDecoder

OPENING, CLOSING = "<think>", "</think>"
_NAME_WORD = "reasoning"


def has_thoughts(folder: Path) -> bool:
    """Return whether a checkpoint or a converted folder says that its model writes thoughts.

    It says so if both tags are tokens of its tokenizer, or if its chat template names one of them.
    """
    template = "".join(template_sources(folder).values())
    return len(tag_tokens(folder)) == 2 or OPENING in template or CLOSING in template


def is_named_reasoning(name: str) -> bool:
    """Return whether the name of a model says that it writes thoughts, as `microsoft/Phi-4-mini-reasoning` does."""
    return _NAME_WORD in name.rpartition("/")[2].lower().replace("_", "-").split("-")


def opens_thought(prompt: str) -> bool:
    """Return whether a prompt ends with the opening tag, so that the model's first text is a thought."""
    return prompt.rstrip().endswith(OPENING)


def answer_of(text: str, opened: bool) -> str:
    """Return the answer in a whole text, without its thought. It is empty if the thought has no end.

    Args:
        opened: whether the prompt ends with the opening tag.
    """
    parser = ThoughtParser(opened)
    answer = parser.feed(text)[1] + parser.end()[1]
    return answer.lstrip() if parser.thinks else answer


class ThoughtParser:
    """Separates a text that comes in pieces. Any pieces of a text give the same as the whole text.

    `thinks` tells whether the text has a thought so far. `is_open` tells whether a thought may still begin or go on:
    afterwards everything is the answer.
    """

    def __init__(self, opened: bool, drops_rest: bool = False) -> None:
        """
        Args:
            opened: whether the prompt ends with the opening tag.
            drops_rest: whether to drop text after the closing tag in the same piece. A response format begins with the
                next token.
        """
        self._drops_rest = drops_rest
        self.thinks, self.is_open = opened, True
        self._held = ""  # text that may be part of a tag, or white space that may be the last of the thought
        self._before_text = True  # only white space and opening tags so far

    def feed(self, piece: str) -> tuple[str, str]:
        """Return the thought and the answer that are certain after a piece."""
        if not self.is_open:
            return "", piece
        self._held += piece
        if self._before_text and not self._begin():
            return "", ""
        if not self.thinks:  # the text begins with something else
            return "", self.end_thought()
        thought, tag, rest = self._held.partition(CLOSING)
        if tag:
            self._held, self.is_open = "", False
            return thought.rstrip(), "" if self._drops_rest else rest
        certain = thought[: len(thought) - _tag_start(thought)].rstrip()
        self._held = thought[len(certain) :]
        return certain, ""

    def end(self) -> tuple[str, str]:
        """Return the rest of the thought and of the answer, when the text has ended."""
        thinks, rest = self.thinks, self.end_thought()
        return (rest.rstrip(), "") if thinks else ("", rest)

    def end_thought(self) -> str:
        """Let everything from here on be the answer, and return the text that was held back."""
        held, self._held, self.is_open = self._held, "", False
        return held

    def _begin(self) -> bool:
        """Skip white space and the opening tag. Return whether it is certain what the text begins with."""
        start = self._held.lstrip()
        while start.startswith(OPENING):  # a model may repeat the tag that its prompt ends with
            self.thinks, start = True, start.removeprefix(OPENING).lstrip()
        if self.thinks:
            self._held = start
        self._before_text = OPENING.startswith(start)  # an empty start too
        return not self._before_text


def _tag_start(text: str) -> int:
    """Return how many characters at the end of a text may be the beginning of a closing tag."""
    return next((n for n in range(min(len(CLOSING) - 1, len(text)), 0, -1) if CLOSING.startswith(text[-n:])), 0)


class TagDecoder:
    """A decoder that shows the tags where a tokenizer holds them as special tokens, whose text decoders leave out."""

    def __init__(self, decoder: "StreamDecoder", tags: dict[int, str]) -> None:
        """
        Args:
            tags: see tag_tokens.
        """
        self._decoder, self._tags = decoder, tags

    def decode(self, token: int) -> str:
        """Return the text that this token completes."""
        text, tag = self._decoder.decode(token), self._tags.get(token, "")
        return text if tag in text else text + tag


def tag_tokens(folder: Path) -> dict[int, str]:
    """Return the tags that are tokens of a folder's tokenizer, by their numbers."""
    file = folder / "tokenizer.json"
    if not file.is_file() or f'"{CLOSING}"'.encode() not in file.read_bytes():  # to parse a large one takes 0.2 s
        return {}
    tokenizer = _json(file)
    vocabulary = (tokenizer.get("model") or {}).get("vocab")
    ids = dict(vocabulary) if isinstance(vocabulary, dict) else {}
    ids |= {token["content"]: token["id"] for token in tokenizer.get("added_tokens") or []}
    return {ids[tag]: tag for tag in (OPENING, CLOSING) if tag in ids}


def _json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one if there is no such file."""
    content = json.loads(_text(path) or "{}")
    return content if isinstance(content, dict) else {}


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8-sig") if path.is_file() else ""
