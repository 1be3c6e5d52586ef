"""Find the text of control tokens, such as <|end|>, in what a caller sends."""

import json
import re
from collections.abc import Callable, Collection, Iterable

from tokenizers import Tokenizer
from tokenizers.normalizers import Normalizer

_TAG = r"<\S+>|\[\S+\]|\{\S+\}|＜\S+＞|【\S+】"  # an added token that is text, such as a word, is none


class ControlTokens:
    """The control tokens of a tokenizer."""

    def __init__(self, tokenizer: Tokenizer, template: str, sought: Collection[str]) -> None:
        """
        Args:
            template: the source of the chat template.
            sought: texts that the template looks for in messages, as `</think>`. They are no control tokens, unless
                the tokenizer says so.
        """
        self.texts: dict[int, str] = {}
        for token_id, token in tokenizer.get_added_tokens_decoder().items():
            text = token.content
            is_tag = re.fullmatch(r"<\|.*\|>", text) or (
                text in template and text not in sought and re.fullmatch(_TAG, text)
            )
            if text and (token.special or is_tag):
                self.texts[token_id] = text
        longest_first = sorted(self.texts.values(), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
        self._normalizer = _normalizer(tokenizer)
        # What every occurrence has: the first or the last character of a control token.
        self._edges = {text[0] for text in longest_first} | {text[-1] for text in longest_first}
        # A string may also begin or end with a part of a control token, and the template may complete it.
        self._longest = max(map(len, longest_first), default=0)
        self._starts = _parts(longest_first, lambda text, cut: text[:cut])
        self._ends = _parts(longest_first, lambda text, cut: text[cut:])

    def may_occur(self, strings: Iterable[str]) -> bool:
        """Return whether strings can have text of control tokens. It takes a microsecond, and is seldom wrong."""
        text = "\0".join(strings)
        return self._normalizer is not None or any(edge in text for edge in self._edges)

    def occurrences(self, string: str) -> list[tuple[int, int]]:
        """Return where a string has text of control tokens, or a part of one at its edges: (start, end) in order.

        If only the normalized string has such text, the result is the whole string. A full-width `＜` may become `<`.
        """
        if self._normalizer is not None and string:
            normalized = self._normalizer.normalize_str(string)
            if normalized != string and self._occurrences(normalized):
                return [(0, len(string))]
        return self._occurrences(string)

    def _occurrences(self, string: str) -> list[tuple[int, int]]:
        if self._pattern is None or not any(edge in string for edge in self._edges):
            return []
        places = [match.span() for match in self._pattern.finditer(string)]
        first, last = (places[0][0], places[-1][1]) if places else (len(string), 0)
        if self._ends is not None and (head := self._ends.match(string)) and head.end() <= first:
            places.insert(0, head.span())
            last = last or head.end()
        if self._starts is not None and (tail := self._starts.search(string, max(last, len(string) - self._longest))):
            places.append(tail.span())
        return places


def _normalizer(tokenizer: Tokenizer) -> Normalizer | None:
    """Return a tokenizer's normalizer; None if it has none, or only writes spaces as another sign."""
    if tokenizer.normalizer is None:
        return None
    # What Python's pickle would store is the part `normalizer` of tokenizer.json.
    content = json.loads(tokenizer.normalizer.__getstate__())
    for operation in content["normalizers"] if content["type"] == "Sequence" else [content]:
        of_spaces = operation["type"] == "Replace" and operation["pattern"] == {"String": " "}
        if operation["type"] != "Prepend" and not of_spaces:
            return tokenizer.normalizer
    return None


def _parts(texts: list[str], part: Callable[[str, int], str]) -> re.Pattern[str] | None:
    """Return a pattern of the parts of control tokens that have a sign in them: letters alone begin every word."""
    parts = {part(text, cut) for text in texts for cut in range(1, len(text))}
    signs = sorted((text for text in parts if not text.isalnum()), key=len, reverse=True)
    if not signs:
        return None
    at_end = r"\Z" if part("ab", 1) == "a" else ""
    return re.compile(f"(?:{'|'.join(map(re.escape, signs))}){at_end}")
