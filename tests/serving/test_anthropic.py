"""The official anthropic client against the server."""

import json

import anthropic
import pytest

from steps.serving.protocols.messages_request import chat_request
from tests.serving.harness import FRANCE, NAME, Server

COUNT = [{"role": "user", "content": "Count from 1 to 10."}]
WEATHER = {"name": "weather", "description": "The weather", "input_schema": {"type": "object"}}


@pytest.fixture
def client(server: Server) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=server.url, api_key="any word", max_retries=0)


@pytest.mark.model
def test_a_message_is_answered(client):
    message = client.messages.create(model=NAME, max_tokens=16, messages=FRANCE)
    assert (message.content[0].text, message.stop_reason) == ("Paris", "end_turn")
    cut = client.messages.create(model=NAME, max_tokens=1, messages=FRANCE)
    assert cut.stop_reason == "max_tokens"


@pytest.mark.model
def test_a_stream_builds_the_message(client):
    with client.messages.stream(model=NAME, max_tokens=16, messages=FRANCE) as stream:
        assert len(list(stream.text_stream)) > 1
        message = stream.get_final_message()
    assert (message.content[0].text, message.stop_reason) == ("Paris", "end_turn")
    assert message.usage.output_tokens > 0


@pytest.mark.model
def test_a_stop_sequence_ends_the_message_and_is_named(client):
    request = {"model": NAME, "max_tokens": 16, "messages": FRANCE, "stop_sequences": ["ri", "z"]}
    message = client.messages.create(**request)
    assert (message.content[0].text, message.stop_reason, message.stop_sequence) == ("Pa", "stop_sequence", "ri")
    with client.messages.stream(**request) as stream:
        message = stream.get_final_message()
    assert (message.content[0].text, message.stop_reason, message.stop_sequence) == ("Pa", "stop_sequence", "ri")


@pytest.mark.model
def test_a_last_message_of_the_assistant_is_continued(client):
    whole = client.messages.create(model=NAME, max_tokens=16, messages=COUNT).content[0].text
    begun, rest = whole[:3], whole[3:]
    messages = [*COUNT, {"role": "assistant", "content": begun}]
    message = client.messages.create(model=NAME, max_tokens=16, messages=messages)
    assert message.content[0].text == rest


@pytest.mark.model
def test_a_message_in_a_format(client):
    output = {"format": {"type": "json_schema", "schema": {"enum": ["Oslo", "Rome"]}}}
    message = client.messages.create(model=NAME, max_tokens=64, messages=FRANCE, output_config=output)
    assert json.loads(message.content[0].text) in ("Oslo", "Rome")


@pytest.mark.model
def test_tokens_are_counted_as_the_answer_counts_them(client):
    count = client.messages.count_tokens(model=NAME, messages=FRANCE).input_tokens
    usage = client.messages.create(model=NAME, max_tokens=1, messages=FRANCE).usage
    assert count == usage.input_tokens + usage.cache_read_input_tokens


@pytest.mark.model
def test_a_refusal_has_anthropics_shape(client):
    image = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
    with pytest.raises(anthropic.BadRequestError) as refusal:
        client.messages.create(model=NAME, max_tokens=1, messages=[{"role": "user", "content": [image]}])
    assert refusal.value.body["type"] == "error"
    assert refusal.value.body["error"]["type"] == "invalid_request_error"
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(model="claude", max_tokens=1, messages=FRANCE)


@pytest.mark.unit
def test_tools_their_calls_and_their_results_become_openais():
    chat = chat_request(
        {
            "max_tokens": 8,
            "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
            "tools": [WEATHER],
            "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
            "messages": [
                {"role": "user", "content": "Oslo?"},
                {
                    "role": "assistant",
                    "content": [{"type": "tool_use", "id": "t1", "name": "weather", "input": {"c": 1}}],
                },
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "rain"}]},
            ],
        }
    )
    assert chat["messages"][0] == {"role": "system", "content": "Be brief."}
    assert chat["messages"][2]["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"c": 1}'}
    assert chat["messages"][3] == {"role": "tool", "tool_call_id": "t1", "content": "rain"}
    assert (chat["tool_choice"], chat["parallel_tool_calls"]) == ("required", False)
    assert chat["tools"][0]["function"]["parameters"] == {"type": "object"}
