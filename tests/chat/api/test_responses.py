"""The answers of llm/v1/chat: tool calls in their text, whole responses, and chunks."""

import json

import pytest

from steps.chat.api.responses import Choice, Chunks, Served, chat_response, usage_of
from steps.chat.api.tools import may_be_calls, parse_calls

pytestmark = pytest.mark.unit
SERVED = Served("a-model", "fp_1")
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


def test_a_response_begins_with_the_fields_of_the_flavor_in_the_same_order():
    answer = chat_response(SERVED, [Choice("Hello", "stop")], usage_of(5, 2, 3))
    fields = [name for name in answer if name not in ("system_fingerprint", "service_tier")]
    assert fields == ["id", "object", "created", "model", "usage", "choices"]
    counts = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    assert answer["usage"] == counts | {"prompt_tokens_details": {"cached_tokens": 3}}
    message = {"role": "assistant", "content": "Hello", "refusal": None}
    assert answer["choices"] == [{"index": 0, "finish_reason": "stop", "message": message, "logprobs": None}]


def test_chunks_are_valid_for_mlflows_own_type():
    from mlflow.types.llm import ChatCompletionChunk

    chunks = Chunks(SERVED, include_usage=True)
    sent = [
        chunks.role(0),
        chunks.text(0, "Hello"),
        chunks.end(0, Choice("Hello", "stop")),
        chunks.usage(usage_of(5, 2)),
    ]
    read = [ChatCompletionChunk.from_dict(chunk) for chunk in sent]
    assert [chunk.id for chunk in read] == [read[0].id] * 4
    assert sent[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert sent[1]["choices"][0]["delta"] == {"content": "Hello"}
    assert (sent[2]["choices"][0]["finish_reason"], read[3].usage.total_tokens) == ("stop", 7)


def test_chunks_have_a_usage_only_if_it_was_asked_for():
    assert Chunks(SERVED, include_usage=True).role(0)["usage"] is None
    assert "usage" not in Chunks(SERVED).role(0)


def test_only_one_call_stays_if_calls_must_not_be_parallel():
    text = json.dumps([{"name": "weather", "arguments": {}}] * 2)
    assert len(Choice.of(text, "stop", [TOOL]).tool_calls) == 2
    assert len(Choice.of(text, "stop", [TOOL], parallel=False).tool_calls) == 1
