"""Windows of tokens that fidelity is measured on, made by the tokenizer of the checkpoint.

As in llama.cpp's perplexity tool (tools/perplexity/README.md and perplexity.cpp,
https://github.com/ggml-org/llama.cpp), the first half of a window is context only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from steps.evaluation.inputs.scored_text import Conversation, TextContent

WINDOW_TOKENS = 512
_ANSWER_TOKENS = 5  # a guess at how many an answer has at least


@dataclass(frozen=True)
class Window:
    """Tokens of a text. The tokens after position `first` are predicted and scored."""

    tokens: list[int]
    first: int

    @property
    def targets(self) -> list[int]:
        """The tokens that are predicted."""
        return self.tokens[self.first + 1 :]


def make_windows(tokenizer: Any, text: TextContent, count: int) -> list[Window]:
    """Return windows with about `count` predicted tokens, or with as many as the text has.

    Args:
        tokenizer: of transformers.
    """
    windows: list[Window] = []
    for document in text.documents:
        tokens = tokenizer(document, verbose=False)["input_ids"]
        windows += text_windows(tokens, max(1, count // len(text.documents)))
    step = max(1, len(text.conversations) * _ANSWER_TOKENS // count)
    predicted = sum(len(window.targets) for window in windows)
    for conversation in text.conversations[::step]:
        if predicted >= count:
            break
        if window := _answer_window(tokenizer, conversation):
            windows.append(window)
            predicted += len(window.targets)
    return windows


def text_windows(tokens: Sequence[int], count: int, size: int = WINDOW_TOKENS) -> list[Window]:
    """Return windows spread evenly over a text, with `count` predicted tokens or with as many as it has.

    Args:
        size: tokens of a window; half of them are predicted.
    """
    size = min(size, len(tokens))
    if size < 2:
        return []
    wanted = max(1, -(-count // (size - size // 2)))
    most = max(1, len(tokens) // size)
    starts = np.linspace(0, len(tokens) - size, min(wanted, most)).astype(int)
    return [Window([int(token) for token in tokens[start : start + size]], size // 2 - 1) for start in starts]


def _answer_window(tokenizer: Any, conversation: Conversation) -> Window | None:
    """Return a window that predicts the answer, without what the chat template adds after it; None if it is empty."""
    prompt = tokenizer.apply_chat_template(conversation.messages, add_generation_prompt=True)
    answer = tokenizer(conversation.answer, add_special_tokens=False)["input_ids"]
    return Window(prompt + answer, len(prompt) - 1) if answer else None
