"""Tool calls by each client: whole, streamed, and with their results as history."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from tests.chat.models import TOOL
from tests.serving.harness import FRANCE, NAME, Server, running

pytestmark = pytest.mark.model
OSLO = {"city": "Oslo"}
FUNCTION: Any = TOOL["function"]
SETTINGS = {"model": NAME, "messages": FRANCE, "tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False}
FLAT = [{"type": "function", "strict": False, **FUNCTION}]  # the tool in the Responses API
ANTHROPIC = [{"name": "weather", "input_schema": FUNCTION["parameters"]}]


@pytest.fixture(scope="module")
def server(with_tools) -> Iterator[Server]:
    with running(with_tools) as server:
        yield server


@pytest.fixture
def client(server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="any word", max_retries=0)


@pytest.fixture
def claude(server) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=server.url, api_key="any word", max_retries=0)


def test_openais_client_gets_a_call_and_sends_its_result(client):
    choice = client.chat.completions.create(**SETTINGS).choices[0]
    (call,) = choice.message.tool_calls
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", OSLO)
    result = {"role": "tool", "tool_call_id": call.id, "content": "5 degrees"}
    history = [*FRANCE, choice.message.model_dump(), result]
    answer = client.chat.completions.create(model=NAME, messages=history, tools=[TOOL], max_tokens=4)
    assert answer.usage.completion_tokens > 0


def test_openais_client_puts_a_streamed_call_together(client):
    chunks = [*client.chat.completions.create(**SETTINGS, stream=True)]
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert (calls[0].function.name, calls[0].function.arguments) == ("weather", "")
    assert json.loads("".join(call.function.arguments for call in calls)) == OSLO
    assert {call.index for call in calls} == {0}
    with client.chat.completions.stream(**SETTINGS) as stream:
        (call,) = stream.get_final_completion().choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == OSLO


def test_a_call_of_the_responses_api_whole_and_streamed(client):
    request = {"model": NAME, "input": "Weather?", "tools": FLAT, "parallel_tool_calls": False}
    (item,) = client.responses.create(**request, tool_choice="required").output
    assert (item.type, item.name, json.loads(item.arguments)) == ("function_call", "weather", OSLO)
    with client.responses.stream(**request, tool_choice={"type": "function", "name": "weather"}) as stream:
        kinds = [event.type for event in stream]
        (streamed,) = stream.get_final_response().output
    assert json.loads(streamed.arguments) == OSLO
    assert "response.function_call_arguments.delta" in kinds
    output = {"type": "function_call_output", "call_id": item.call_id, "output": "5 degrees"}
    history = [{"role": "user", "content": "Weather?"}, item.model_dump(), output]
    assert client.responses.create(model=NAME, input=history, tools=FLAT, max_output_tokens=4).usage.output_tokens > 0


def test_a_choice_without_tools_is_refused_by_each_protocol(client, claude):
    with pytest.raises(openai.BadRequestError) as refusal:
        client.responses.create(model=NAME, input="Weather?", tool_choice="required")
    assert refusal.value.param == "tool_choice"
    with pytest.raises(anthropic.BadRequestError, match="tool_choice"):
        claude.messages.create(model=NAME, max_tokens=4, messages=FRANCE, tool_choice={"type": "any"})


def test_anthropics_client_gets_a_call_whole_and_streamed(claude):
    choice = {"type": "any", "disable_parallel_tool_use": True}
    request = {"model": NAME, "max_tokens": 200, "messages": FRANCE, "tools": ANTHROPIC, "tool_choice": choice}
    message = claude.messages.create(**request)
    (block,) = message.content
    assert (message.stop_reason, block.type, block.name, block.input) == ("tool_use", "tool_use", "weather", OSLO)
    with claude.messages.stream(**request) as stream:
        (streamed,) = stream.get_final_message().content
    assert streamed.input == OSLO
    result = {"type": "tool_result", "tool_use_id": block.id, "content": "5 degrees"}
    history = [*FRANCE, {"role": "assistant", "content": [block]}, {"role": "user", "content": [result]}]
    answer = claude.messages.create(model=NAME, max_tokens=4, messages=history, tools=ANTHROPIC)
    assert answer.usage.output_tokens > 0


def test_langchain_binds_a_tool(server):
    chat = ChatOpenAI(model=NAME, base_url=f"{server.url}/v1", api_key=SecretStr("any word"), max_retries=0)
    (call,) = chat.bind_tools([TOOL], tool_choice="required", parallel_tool_calls=False).invoke("Weather?").tool_calls
    assert (call["name"], call["args"]) == ("weather", OSLO)
