"""The values of the parameter `task`, and what the logged models of both wrap steps have in common."""

from typing import Any

TASKS = ("llm/v1/chat", "llm/v1/completions")
QUESTION = "What is the capital of France?"
# Task -> the input example of the logged model: the input alone, or the input and its parameters.
INPUT_EXAMPLES: dict[str, Any] = {
    "llm/v1/chat": {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 16},
    "llm/v1/completions": ({"prompt": f"<|user|>\n{QUESTION}<|end|>\n<|assistant|>\n"}, {"max_tokens": 16}),
}
MAX_TOKENS = 256  # the longest answer, in tokens, if a request sets no limit
