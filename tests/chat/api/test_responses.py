"""The answers of llm/v1/chat: tool calls in their text, whole responses, and chunks."""

import json

import pytest

from steps.chat.api.responses import Choice, Chunks, chat_response
from steps.chat.api.tools import may_be_calls, parse_calls

pytestmark = pytest.mark.unit
TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


@pytest.mark.parametrize(
    "text",
    [
        '[{"name": "weather", "arguments": {"city": "Oslo"}}]',
        '{"name": "weather", "arguments": {"city": "Oslo"}}',
        ' functools[{"name": "weather", "parameters": {"city": "Oslo"}}]',
        '<|tool_call|>[{"name": "weather", "arguments": {"city": "Oslo"}}]<|/tool_call|>',
    ],
)
def test_calls_are_read_however_phi_4_mini_writes_them(text):
    (call,) = parse_calls(text, ["weather"])
    assert call["type"] == "function" and call["id"].startswith("call_")
    assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == ("weather", {"city": "Oslo"})
    assert Choice.of(text, "stop", [TOOL]).finish_reason == "tool_calls"


@pytest.mark.parametrize("text", ["It is cold.", '[{"name": "other"}]', '[{"name": "weather"', "[1]", "[]", "7"])
def test_any_other_answer_is_text(text):
    assert Choice.of(text, "stop", [TOOL]) == Choice(text, "stop")


@pytest.mark.parametrize("text", ["", "<|tool", "functools[{", "[", "[ {", '{ "name'])
def test_text_that_may_become_calls_is_held_back(text):
    assert may_be_calls(text)


@pytest.mark.parametrize("text", ["fun!", "It", "<|end"])
def test_other_text_is_not_held_back(text):
    assert not may_be_calls(text)


def test_a_response_has_the_fields_of_the_flavor_in_the_same_order():
    answer = chat_response("a-model", [Choice("Hello", "stop")], 5, 2)
    assert list(answer) == ["id", "object", "created", "model", "usage", "choices"]
    assert answer["usage"] == {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    assert answer["choices"] == [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello"}}
    ]


def test_chunks_are_valid_for_mlflows_own_type():
    from mlflow.types.llm import ChatCompletionChunk

    chunks, response = Chunks("a-model"), chat_response("a-model", [Choice("Hello", "stop")], 5, 2)
    sent = [
        chunks.text(0, "Hel"),
        chunks.text(0, "lo"),
        chunks.end(0, Choice("Hello", "stop")),
        chunks.usage(response["usage"]),
    ]
    read = [ChatCompletionChunk.from_dict(chunk) for chunk in sent]
    assert [chunk.id for chunk in read] == [read[0].id] * 4
    assert sent[0]["choices"][0]["delta"] == {"role": "assistant", "content": "Hel"}
    assert sent[1]["choices"][0]["delta"] == {"content": "lo"}
    assert (sent[2]["choices"][0]["finish_reason"], read[3].usage.total_tokens) == ("stop", 7)
