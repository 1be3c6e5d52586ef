"""The values of the parameter `task`, and what the logged models of both wrap steps have in common."""

from collections.abc import Iterable
from typing import Any

from steps.common.errors import StepError

TASKS = ("llm/v1/chat", "llm/v1/completions")
QUESTION = "What is the capital of France?"
# Task -> the input example of the logged model: the input alone, or the input and its parameters.
INPUT_EXAMPLES: dict[str, Any] = {
    "llm/v1/chat": {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 16},
    "llm/v1/completions": ({"prompt": f"<|user|>\n{QUESTION}<|end|>\n<|assistant|>\n"}, {"max_tokens": 16}),
}
MAX_TOKENS = 256  # the longest answer, in tokens, if a request sets no limit


def check_task(has_chat_template: bool, task: str) -> None:
    """Raise StepError if a task needs the chat template that a checkpoint lacks."""
    if task == "llm/v1/chat" and not has_chat_template:
        raise StepError(
            "task is 'llm/v1/chat', and the checkpoint has no chat template: give task=llm/v1/completions, or save the "
            "tokenizer with a chat_template where the model was trained"
        )


def check_evaluable(tasks: Iterable[str]) -> None:
    """Raise StepError if one of the wrapped models of a profile has a task that evaluate cannot measure."""
    for task in tasks:
        if task == "llm/v1/completions":
            raise StepError(
                f"task is {task!r}, and evaluate compares models of the task llm/v1/chat: leave evaluate out, with "
                "steps=fetch_model,convert_onnx,wrap_transformer,wrap_custom, or use task=llm/v1/chat"
            )
