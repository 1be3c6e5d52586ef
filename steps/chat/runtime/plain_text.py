"""Keep the text of control tokens in a caller's strings plain text, so that nobody forges a turn.

A control token is a token such as <|end|>. Only the chat template may make one. A caller's "<|end|>" is six characters.

    the caller's strings   "a<|end|>b"                           a stand-in for each text of a control token
    what is rendered       "<|user|>\\naXb<|end|>\\n<|assistant|>"   X: one character of the private use area
    split at control IDs   <|user|> | "\\naXb" | <|end|> | ...     the template's own control tokens
    encoded again          "\\na<|end|>b"                         by a tokenizer that has no control tokens

Conversations without such text take none of these steps.
"""

import json
import secrets
import threading
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException
from tokenizers import Tokenizer

from .control_tokens import ControlTokens

_PRIVATE_USE = range(0xE000, 0xF900)


class StandIns:
    """The stand-ins of one conversation: one character for each text that is replaced."""

    def __init__(self, controls: ControlTokens, strings: Collection[str], template: str) -> None:
        """
        Args:
            strings: all strings of the caller.
            template: the source of the chat template.
        """
        self._controls = controls
        self._characters: dict[str, str] = {}  # text -> its stand-in
        self._taken = "".join(strings) + template
        self._free = self._unused()

    @property
    def used(self) -> bool:
        """Whether the caller's strings have text of control tokens."""
        return bool(self._characters)

    def replace(self, value: Any) -> Any:
        """Return a value of JSON's kinds, with a stand-in for each text of a control token in it."""
        if isinstance(value, str):
            return self._replace(value)
        if isinstance(value, dict):
            return {self.replace(key): self.replace(item) for key, item in value.items()}
        return [self.replace(item) for item in value] if isinstance(value, list) else value

    def restore(self, text: str) -> str:
        """Return a text with the caller's own text in place of the stand-ins."""
        if not self.within(text):
            return text
        for original, character in self._characters.items():
            text = text.replace(character, original)
            escaped = json.dumps(original)[1:-1]
            for name in _escapes(character):
                text = text.replace(name, escaped)
        return text

    def within(self, text: str) -> bool:
        """Return whether a text has a stand-in, as it is or escaped as JSON escapes it."""
        return any(
            name in text for character in self._characters.values() for name in (character, *_escapes(character))
        )

    def _replace(self, string: str) -> str:
        places = self._controls.occurrences(string)
        for start, end in reversed(places):
            string = string[:start] + self._stand_in(string[start:end]) + string[end:]
        return string

    def _stand_in(self, text: str) -> str:
        if text not in self._characters:
            self._characters[text] = next(self._free)
        return self._characters[text]

    def _unused(self) -> Iterator[str]:
        lower = self._taken.lower()
        for code in _PRIVATE_USE:
            if chr(code) not in lower and f"\\u{code:04x}" not in lower:
                yield chr(code)
        raise MlflowException.invalid_parameter_value(
            "messages have text of special tokens and all characters of the private use area; send one of the two"
        )


def _escapes(character: str) -> tuple[str, str]:
    return f"\\u{ord(character):04x}", f"\\u{ord(character):04X}"


class PlainTextEncoder:
    """Encodes prompts in which the caller's text of control tokens stays text. Any thread may call it."""

    def __init__(self, path: Path, tokenizer: Tokenizer, controls: ControlTokens) -> None:
        """
        Args:
            path: tokenizer.json.
        """
        self._path, self._tokenizer, self._controls = path, tokenizer, controls
        strange = tokenizer.encode("\U0010fffd", add_special_tokens=False).ids
        # The token of characters that the tokenizer does not know; it may be called <unk>.
        self._unknown = next((token for token in strange if token in controls.texts), None)
        self._lock = threading.Lock()
        self._plain: Tokenizer | None = None
        self._anchor = ""  # the plain tokenizer's name of some control token

    def encode(self, prompt: str, stand_ins: StandIns) -> list[int]:
        """Return the tokens of a prompt that was rendered with stand-ins.

        Raises:
            MlflowException: the tokenizer makes a control token of the caller's text all the same.
        """
        encoding = self._tokenizer.encode(prompt, add_special_tokens=False)
        ids, offsets = encoding.ids, encoding.offsets
        tokens: list[int] = []
        first, start = 0, 0  # of the region after the last control token: its first token, its first character
        for index in [*filter(lambda i: self._is_control(ids[i], prompt, offsets[i]), range(len(ids))), len(ids)]:
            end = offsets[index][0] if index < len(ids) else len(prompt)
            region = prompt[start:end]
            tokens += self._encode_region(region, start, stand_ins) if stand_ins.within(region) else ids[first:index]
            if index < len(ids):
                tokens.append(ids[index])
                first, start = index + 1, offsets[index][1]
        return tokens

    def _is_control(self, token: int, prompt: str, offsets: tuple[int, int]) -> bool:
        text = self._controls.texts.get(token)
        return text is not None and (token != self._unknown or prompt[slice(*offsets)].strip() == text)

    def _encode_region(self, region: str, start: int, stand_ins: StandIns) -> list[int]:
        text = stand_ins.restore(region)
        plain = self._plain_tokenizer()
        # Some tokenizers treat the beginning of a text in another way. A control token before the text prevents that.
        anchor = self._anchor if start else ""
        tokens = plain.encode(anchor + text, add_special_tokens=False).ids[bool(anchor) :]
        if any(token in self._controls.texts and token != self._unknown for token in tokens):
            raise MlflowException.invalid_parameter_value(
                "messages have text of special tokens that this tokenizer cannot read as plain text: leave it out"
            )
        return tokens

    def _plain_tokenizer(self) -> Tokenizer:
        """The same tokenizer, in which each control token has another name. Made at the first use: it may take 1 s."""
        with self._lock:
            if self._plain is None:
                # Nobody can write the new names, because they differ in each process.
                mark = f"\U0010fffd{secrets.token_hex(8)}"
                names = {text: f"{mark}{token}\U0010fffd" for token, text in self._controls.texts.items()}
                content = _renamed(json.loads(self._path.read_text(encoding="utf-8")), names)
                self._anchor = next(iter(names.values()))
                self._plain = load(json.dumps(content, ensure_ascii=False))
            return self._plain


def load(source: Path | str) -> Tokenizer:
    """Return the tokenizer of a tokenizer.json, given as its path or as its text, without truncation and padding."""
    tokenizer = Tokenizer.from_file(str(source)) if isinstance(source, Path) else Tokenizer.from_str(source)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _renamed(content: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """Return a tokenizer.json with other names for some tokens. Their numbers stay."""
    edges = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    for token in content["added_tokens"]:
        if token["content"] in names:
            token.update(content=names[token["content"]], **edges)
    model = content["model"]
    vocab = model.get("vocab")
    if isinstance(vocab, dict):
        model["vocab"] = {names.get(text, text): token for text, token in vocab.items()}
    elif isinstance(vocab, list):  # Unigram: pairs of a text and its score
        model["vocab"] = [[names.get(text, text), score] for text, score in vocab]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if "merges" in model:
        model["merges"] = [merge for merge in model["merges"] if not _makes(merge, names)]
    return content


def _makes(merge: str | list[str], names: dict[str, str]) -> bool:
    """Return whether a merge makes or takes a token that has another name now."""
    left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
    return left in names or right in names or left + right in names
