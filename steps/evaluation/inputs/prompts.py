"""What a checkpoint's tokenizer makes of a text: windows for the fidelity, prompts of given lengths for the speed."""

from typing import Any

from steps.common.errors import StepError
from steps.evaluation.measure.fidelity import Window, text_windows

Messages = list[dict[str, str]]
_TRIES = 8


def make_windows(tokenizer: Any, text: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Windows of tokens, of which about `count` are predicted, or as many as the text has.

    Of a conversation the answer is predicted, and not what the template puts after it.

    Args:
        tokenizer: of transformers.
        text: texts.Text as a dict.
    """
    windows = []
    documents, conversations = text["documents"], text["conversations"]
    for document in documents:
        tokens = tokenizer(document, verbose=False)["input_ids"]
        windows += text_windows(tokens, max(1, count // len(documents)))
    step = max(1, len(conversations) * 5 // count)  # an answer has some tokens
    predicted = sum(len(window.targets) for window in windows)
    for conversation in conversations[::step]:
        if predicted >= count:
            break
        asked = tokenizer.apply_chat_template(conversation["messages"], add_generation_prompt=True)
        answer = tokenizer(conversation["answer"], add_special_tokens=False)["input_ids"]
        if answer:
            windows.append(Window(asked + answer, len(asked) - 1))
            predicted += len(answer)
    return [{"tokens": window.tokens, "first": window.first} for window in windows]


def make_prompts(tokenizer: Any, text: dict[str, Any], lengths: list[int], each: int) -> list[list[Messages]]:
    """For each length, so many conversations of one message whose prompts have that many tokens, as near as they can.

    The words are the text's; no two prompts begin alike, so that none can be taken from what a model keeps.

    Raises:
        StepError: the chat template alone is longer than a length.
    """
    said = [f"{talk['messages'][-1]['content']} {talk['answer']}" for talk in text["conversations"]]
    words = "\n".join(text["documents"] or said)
    source = tokenizer(words[: 40 * max(lengths)], add_special_tokens=False, verbose=False)["input_ids"]
    source = source * (1 + 2 * max(lengths) // len(source))

    def prompt(number: int, body: int) -> tuple[Messages, int]:
        content = f"{number}. {tokenizer.decode(source[number % 7 : number % 7 + body])}"
        messages = [{"role": "user", "content": content}]
        return messages, len(tokenizer.apply_chat_template(messages, add_generation_prompt=True))

    made, number = [], 0
    for length in lengths:
        if prompt(number, 0)[1] > length:
            raise StepError(f"a prompt of {length} tokens is shorter than the chat template")
        made.append([])
        for _ in range(each):
            number += 1
            body, best = length, None
            for _ in range(_TRIES):
                messages, count = prompt(number, body)
                if best is None or abs(count - length) < abs(best[1] - length):
                    best = messages, count
                if count == length:
                    break
                body = max(0, body + length - count)
            made[-1].append(best[0])
    return made
