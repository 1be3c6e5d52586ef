"""LangChain's ChatOpenAI against the server."""

from typing import Literal

import pytest
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr

from tests.serving.harness import NAME, Server

pytestmark = pytest.mark.model
QUESTION = "What is the capital of France?"


class Capital(BaseModel):
    """The capital of a country."""

    city: Literal["Oslo", "Paris"]  # a small model may never end a free text


@pytest.fixture
def chat(server: Server) -> ChatOpenAI:
    return ChatOpenAI(model=NAME, base_url=f"{server.url}/v1", api_key=SecretStr("any word"), max_retries=0)


def test_invoke(chat):
    answer = chat.invoke(QUESTION)
    assert answer.content == "Paris"
    assert answer.usage_metadata["output_tokens"] > 0


def test_stream(chat):
    pieces = [chunk.content for chunk in chat.stream(QUESTION)]
    assert "".join(pieces) == "Paris"
    assert len([piece for piece in pieces if piece]) > 1


def test_structured_output(chat):
    assert isinstance(chat.with_structured_output(Capital, method="json_schema").invoke(QUESTION), Capital)
