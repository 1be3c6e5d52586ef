"""The tasks that both wrappers serve, and what their logged models have in common."""

TASKS = ("llm/v1/chat", "llm/v1/completions")
QUESTION = "What is the capital of France?"
INPUT_EXAMPLES = {  # with the parameters, where a task has any
    "llm/v1/chat": {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 16},
    "llm/v1/completions": ({"prompt": f"<|user|>\n{QUESTION}<|end|>\n<|assistant|>\n"}, {"max_tokens": 16}),
}
MAX_TOKENS = 256  # of an answer where the request says nothing, in both wrappers
