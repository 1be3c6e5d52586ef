"""Turn the tokens of an answer into text, one token at a time.

Invariant: the pieces joined are the text that the tokenizer makes of all tokens at once, and no piece ends within a
character. A token costs the same time wherever it is in the answer. tokenizers.decoders.DecodeStream can't be used:
it holds all text back after a byte that is no UTF-8, and decodes the held tokens again at every step.

    token ─► its string ─► the per-token part of the decoder ─► bytes or text ─► whole characters

A decoder of tokenizer.json is a list of operations. Byte-level BPE, SentencePiece with bytes for unknown characters and
Unigram are lists of the few operations below. Any other list is decoded by the tokenizer itself, in a short window.
"""

import codecs
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from tokenizers import Tokenizer

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_WINDOW = 16  # tokens that the window of an unknown decoder holds back at most


class StreamDecoder(Protocol):
    """Turns the tokens of one answer into text."""

    def decode(self, token: int) -> str:
        """Return the text that this token completes. A token may end within a character; then its text comes later."""


@dataclass(frozen=True)
class _Steps:
    """What a decoder does with the string of one token, and with the beginning of the text."""

    byte_level: bool = False
    byte_fallback: bool = False
    replacements: tuple[tuple[str, str], ...] = ()
    metaspace: str = ""  # the sign for a space, which the first token of a text loses
    first_space: str = ""  # what the text loses at its beginning, once


class StreamDecoders:
    """Makes the decoders of one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self._special_ids = frozenset(token_id for token_id, token in added.items() if token.special)
        # What Python's pickle would store is the part `decoder` of tokenizer.json.
        self._steps = _steps(json.loads(tokenizer.decoder.__getstate__()) if tokenizer.decoder else None)

    def decoder(self, continues: bool = False) -> StreamDecoder:
        """Return a decoder for one answer.

        Args:
            continues: whether text comes before the answer. If not, the first token loses the space that tokenizers of
                the SentencePiece kind put before every text.
        """
        if self._steps is None:
            return _WindowDecoder(self._tokenizer, self._special_ids, continues)
        return _TokenDecoder(self._tokenizer.id_to_token, self._steps, self._special_ids, continues)


class _TokenDecoder:
    """Decodes token by token."""

    def __init__(
        self, string_of: Callable[[int], str | None], steps: _Steps, special_ids: frozenset[int], continues: bool
    ) -> None:
        self._string_of, self._steps, self._special_ids = string_of, steps, special_ids
        self._at_start = self._first_token = not continues
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._pending = False  # bytes of a character that is not complete

    def decode(self, token: int) -> str:
        """See StreamDecoder."""
        if token in self._special_ids or (string := self._string_of(token)) is None:
            return ""
        steps = self._steps
        if steps.byte_level:
            return self._utf8.decode(_bytes_of(string))
        if steps.byte_fallback:
            if byte := _BYTE_TOKEN.fullmatch(string):
                return self._shown(self._add_byte(int(byte[1], 16)))
            before = self._end_of_bytes()
        else:
            before = ""
        for old, new in steps.replacements:
            string = string.replace(old, new)
        if steps.metaspace:
            string = string.replace(steps.metaspace, "" if self._first_token else " ")
        self._first_token = False
        return self._shown(before + string)

    def _add_byte(self, byte: int) -> str:
        self._first_token = False
        text = self._utf8.decode(bytes([byte]))
        self._pending = bool(self._utf8.getstate()[0])
        return text

    def _end_of_bytes(self) -> str:
        """Return what stands for the bytes of a character that was never completed."""
        if not self._pending:
            return ""
        pending = len(self._utf8.getstate()[0])
        self._utf8.reset()
        self._pending = False
        return "\ufffd" * pending

    def _shown(self, text: str) -> str:
        if self._at_start and text:
            self._at_start = False
            text = text.removeprefix(self._steps.first_space)
        return text


class _WindowDecoder:
    """Decodes the last tokens again with each new one, and returns what has become longer."""

    def __init__(self, tokenizer: Tokenizer, special_ids: frozenset[int], continues: bool) -> None:
        self._tokenizer, self._special_ids = tokenizer, special_ids
        self._shown: list[int] = []  # the tokens before the new ones
        self._new: list[int] = []
        self._continues = continues

    def decode(self, token: int) -> str:
        """See StreamDecoder."""
        if token in self._special_ids:
            return ""
        self._new.append(token)
        if not self._shown and self._continues:
            self._shown = [token]  # whatever it is, its text comes before
            self._new = [token]
        before = self._tokenizer.decode(self._shown) if self._shown else ""
        text = self._tokenizer.decode(self._shown + self._new)
        if text.endswith("\ufffd") and len(self._new) < _WINDOW:
            return ""
        self._shown, self._new = (self._new if text[len(before) :] else self._shown + self._new)[-_WINDOW:], []
        return text[len(before) :]


def _steps(decoder: dict[str, Any] | None) -> _Steps | None:
    """Return the operations of a decoder; None if it has others than those that are known here."""
    if decoder is None:
        return None  # tokenizers joins the tokens with spaces
    operations = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
    kinds = [operation["type"] for operation in operations]
    if kinds == ["ByteLevel"]:
        return _Steps(byte_level=True)
    if kinds == ["Metaspace"]:
        sign = operations[0]["replacement"]
        if operations[0].get("prepend_scheme", "always") == "never":
            return _Steps(replacements=((sign, " "),))
        return _Steps(metaspace=sign)
    values: dict[str, Any] = {}
    fused = False
    for kind, operation in zip(kinds, operations, strict=True):
        pattern = operation.get("pattern", {}).get("String")
        if kind == "Replace" and pattern and not fused and not values.get("byte_fallback"):
            values["replacements"] = (*values.get("replacements", ()), (pattern, operation["content"]))
        elif kind == "ByteFallback" and not fused:
            values["byte_fallback"] = True
        elif kind == "Fuse":
            fused = True
        elif kind == "Strip" and fused and operation["stop"] == 0 and operation["start"] == 1:
            values["first_space"] = operation["content"]
        else:
            return None
    return _Steps(**values)


def _byte_alphabet() -> dict[str, int]:
    """Return the byte of each character of byte-level BPE. Bytes that are not printable have characters from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}


_ALPHABET = _byte_alphabet()


def _bytes_of(string: str) -> bytes:
    """Return the bytes of a byte-level token. An added token is written as it is."""
    try:
        return bytes([_ALPHABET[character] for character in string])
    except KeyError:
        return string.encode()
