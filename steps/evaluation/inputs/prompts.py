"""Prompts of given lengths to time models with, made by the tokenizer of the checkpoint."""

from typing import Any

from steps.evaluation.inputs.reading import Messages
from steps.evaluation.inputs.scored_text import TextContent

_TRIES = 8  # to meet a length
_LEAST_BODY = 8  # tokens of the text in a prompt


def make_prompts(tokenizer: Any, text: TextContent, lengths: list[int], count: int, limit: int) -> list[list[Messages]]:
    """Return `count` prompts for each length: conversations of one message, made of the words of the text.

    No two prompts begin alike, so that a model cannot answer one from the KV cache of another. Where the chat template
    alone fills the shortest length, all lengths grow by the same number of tokens.

    Args:
        tokenizer: of transformers.
        lengths: tokens of a prompt with its chat template. A prompt comes as near to its length as it can.
        limit: tokens that a prompt may have. Longer lengths are left out, except the first.
    """
    maker = _PromptMaker(tokenizer, text, max(lengths))
    template = maker.prompt(len(lengths) * count, 0)[1]
    missing = max(0, template + _LEAST_BODY - min(lengths))
    lengths = [length + missing for length in lengths]
    lengths = [length for length in lengths if length <= limit] or lengths[:1]
    return [
        [maker.prompt_of_length(index * count + number, length) for number in range(1, count + 1)]
        for index, length in enumerate(lengths)
    ]


class _PromptMaker:
    """The tokens that prompts are cut from."""

    def __init__(self, tokenizer: Any, text: TextContent, longest: int) -> None:
        self._tokenizer = tokenizer
        spoken = [f"{talk.messages[-1]['content']} {talk.answer}" for talk in text.conversations]
        words = "\n".join(text.documents or spoken)
        tokens = tokenizer(words[: 40 * longest], add_special_tokens=False, verbose=False)["input_ids"]
        self._tokens = tokens * (1 + 2 * longest // len(tokens))

    def prompt(self, number: int, body: int) -> tuple[Messages, int]:
        """Return a prompt that begins with its number and goes on with `body` tokens, and its length in tokens."""
        start = number % 7
        content = f"{number}. {self._tokenizer.decode(self._tokens[start : start + body])}"
        messages = [{"role": "user", "content": content}]
        return messages, len(self._tokenizer.apply_chat_template(messages, add_generation_prompt=True))

    def prompt_of_length(self, number: int, length: int) -> Messages:
        """Return the prompt of a number that is nearest to a length."""
        body = max(0, length - self.prompt(number, 0)[1])
        tries: list[tuple[int, Messages]] = []  # distance, prompt
        for _ in range(_TRIES):
            # Decoded tokens are other tokens when they are encoded again: correct by the difference.
            messages, tokens = self.prompt(number, body)
            tries.append((abs(tokens - length), messages))
            if tokens == length:
                break
            body = max(0, body + length - tokens)
        return min(tries, key=lambda pair: pair[0])[1]
