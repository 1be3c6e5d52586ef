"""Let a reasoning model think before it answers, but not for all of its tokens.

    max_tokens   |----------------------- 100 -----------------------|
    thought      |<think> ................ </think>|                     the model ended it itself
    thought      |<think> ............................... </think>|      token 75, at answer_share = 0.25: it is ended
    answer                                         |.. response format ..|

The engine ends a thought with the tokens of the closing tag. A response format begins after the closing tag.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..runtime.reasoning import CLOSING, OPENING, TagDecoder, ThoughtParser, has_thoughts, opens_thought, tag_tokens
from ..runtime.stream_decoder import StreamDecoder
from ..runtime.tokenizer import ChatTokenizer
from ..settings import Settings
from .constraint import Constraint

_PROMPT_END = 16  # tokens; more than an opening tag and white space take


class ThoughtConstraint:
    """What the next token of a thought, and of the answer after it, may be."""

    def __init__(self, thoughts: "Thoughts", parser: ThoughtParser, limit: int | None, answer: Constraint | None):
        """
        Args:
            parser: the parser of this answer's text. Its state says where the thought ends.
            limit: tokens of the thought without its closing tag; None for no limit.
            answer: the response format's constraint.
        """
        self._thoughts, self._parser, self._limit, self._answer = thoughts, parser, limit, answer
        self._count = 0
        self._forced: list[int] = []  # the next tokens

    def allowed(self, vocab_size: int) -> np.ndarray | None:
        """Return which tokens may come next: bool [vocab_size], or None for all of them."""
        if not self._parser.is_open:
            return self._answer.allowed(vocab_size) if self._answer else None
        if not self._forced and self._parser.thinks and self._limit is not None and self._count >= self._limit:
            self._forced = [*self._thoughts.closing]
        if self._forced:
            return _only(self._forced[0], vocab_size)
        if self._answer is None or self._parser.thinks:
            return None
        mask = self._answer.allowed(vocab_size)
        mask[self._thoughts.opening[0]] = True
        return mask

    def accept(self, token: int) -> int:
        """Go on to the state after an allowed token.

        Returns:
            The token. In the place of an end token inside a thought, before a response format: the closing tag's first.
        """
        self._count += 1
        if not self._parser.is_open:
            self._forced.clear()
            return self._answer.accept(token) if self._answer else token
        if self._forced:
            self._forced.pop(0)
        elif self._answer and self._parser.thinks and token in self._thoughts.end_tokens:
            token, *self._forced = self._thoughts.closing
        elif self._answer and not self._parser.thinks:
            self._begin_with_format(token, self._answer)
        return token

    def _begin_with_format(self, token: int, answer: Constraint) -> None:
        """Take the first token as the answer's if the response format allows it, and else as the opening tag's."""
        if answer.allowed(token + 1)[token]:
            self._parser.end_thought()
            answer.accept(token)
        else:
            self._forced = self._thoughts.opening[1:]


@dataclass(frozen=True)
class Thoughts:
    """How one model writes its thoughts, in tokens."""

    opening: list[int]
    closing: list[int]
    end_tokens: list[int]
    answer_share: float
    tags: dict[int, str]  # the tags that are tokens

    @classmethod
    def of(cls, folder: Path, tokenizer: ChatTokenizer, settings: Settings, end_tokens: list[int]) -> "Thoughts | None":
        """Return how a model writes its thoughts, or None if it is no reasoning model."""
        if settings.reasoning == "off" or not (settings.reasoning == "on" or has_thoughts(folder)):
            return None
        tags = tag_tokens(folder)
        opening, closing = (_tag_as_tokens(tag, tags, tokenizer) for tag in (OPENING, CLOSING))
        return cls(opening, closing, end_tokens, settings.answer_share, tags)

    def parser(self, prompt: list[int], tokenizer: ChatTokenizer, has_format: bool) -> ThoughtParser:
        """Return the parser of the answer to a prompt."""
        decoder = self.decoder(tokenizer)
        prompt_end = "".join(decoder.decode(token) for token in prompt[-_PROMPT_END:])
        return ThoughtParser(opens_thought(prompt_end), drops_rest=has_format)

    def constraint(self, parser: ThoughtParser, max_tokens: int, answer: Constraint | None) -> ThoughtConstraint:
        """Return the constraint of an answer of at most `max_tokens` tokens."""
        limit = max(0, int(max_tokens * (1 - self.answer_share)) - len(self.closing))
        has_limit = self.answer_share > 0 and limit + len(self.closing) < max_tokens
        return ThoughtConstraint(self, parser, limit if has_limit else None, answer)

    def decoder(self, tokenizer: ChatTokenizer) -> StreamDecoder:
        """Return a decoder that shows the tags."""
        return TagDecoder(tokenizer.stream_decoder(), self.tags)


def _tag_as_tokens(tag: str, tags: dict[int, str], tokenizer: ChatTokenizer) -> list[int]:
    for token, name in tags.items():
        if name == tag:
            return [token]
    tokens = tokenizer.encode(tag)
    while len(tokens) > 1 and _decode(tokens[1:], tokenizer).strip() == tag:  # a beginning of text, or a space
        tokens = tokens[1:]
    return tokens


def _decode(tokens: list[int], tokenizer: ChatTokenizer) -> str:
    decoder = tokenizer.stream_decoder()
    return "".join(decoder.decode(token) for token in tokens)


def _only(token: int, vocab_size: int) -> np.ndarray:
    mask = np.zeros(vocab_size, bool)
    mask[token] = True
    return mask
