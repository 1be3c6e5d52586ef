"""Questions that the tests ask an engine."""

import json
from typing import Any

from steps.chat.api.requests import parse_chat
from steps.chat.api.response_format import RegexFormat
from steps.chat.batching.engine import Engine
from steps.chat.batching.generation import Completion, Generation
from tests.checkout import ROOT

QA: list[dict[str, Any]] = [
    json.loads(line) for line in (ROOT / "params/evalsets/tiny-qa.jsonl").read_text().splitlines()
]
QUESTIONS: list[str] = [row["messages"][0]["content"] for row in QA]
COUNT = "Count from 1 to 40."
DIGITS = RegexFormat("[0-9]{3000}")  # keeps the model from ending an answer early


def start(engine: Engine, question: str, **fields: Any) -> Generation:
    """Submit a conversation of one question."""
    request = parse_chat(
        {"messages": [{"role": "user", "content": question}]} | fields, 128, engine.tokenizer.supports_tools
    )
    return engine.submit(engine.tokenizer.encode_chat(request.messages, request.tools), request.sampling)


def ask(engine: Engine, question: str, **fields: Any) -> Completion:
    """Return the answer to a conversation of one question."""
    return start(engine, question, **fields).wait()
