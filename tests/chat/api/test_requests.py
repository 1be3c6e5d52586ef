"""The requests of both tasks: what is accepted, what is refused by the field's name; and the answers' shapes."""

import json
import math

import numpy as np
import pytest
from mlflow.exceptions import MlflowException

from steps.chat.api.requests import ChatRequest, Sampling, parse_chat, parse_params, parse_prompt
from steps.chat.api.responses import Choice, Chunks, chat_response
from steps.chat.api.tools import may_be_calls, parse_calls

HELLO = [{"role": "user", "content": "Hello"}]
TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}


def parse(fields: dict, takes_tools: bool = True) -> ChatRequest:
    return parse_chat({"messages": HELLO} | fields, default_max_tokens=7, takes_tools=takes_tools)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"max_tokens": 7, "temperature": 0.0, "stop": (), "seed": None, "form": None}),
        ({"max_tokens": 3}, {"max_tokens": 3}),
        ({"max_tokens": 3.0}, {"max_tokens": 3}),  # what pandas makes of an optional integer
        ({"temperature": math.nan, "stop": None}, {"temperature": 0.0, "stop": ()}),  # and of an absent one
        ({"temperature": 0.7, "top_p": 0.9, "top_k": 40}, {"temperature": 0.7, "top_p": 0.9, "top_k": 40}),
        ({"stop": "end"}, {"stop": ("end",)}),
        ({"stop": np.array(["a", "b"])}, {"stop": ("a", "b")}),
        ({"seed": 0}, {"seed": 0}),
        ({"presence_penalty": -2, "frequency_penalty": 0.5}, {"presence_penalty": -2, "frequency_penalty": 0.5}),
        ({"response_format": {"type": "text"}}, {"form": None}),
        ({"response_format": {"type": "regex", "regex": "[a-z]+"}}, {"form": ("regex", "[a-z]+")}),
        ({"response_format": {"type": "json_object"}}, {"form": ("json_schema", {"type": "object"})}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "integer"}}}},
            {"form": ("json_schema", {"type": "integer"})},
        ),
        ({"tools": np.array([]), "custom_inputs": {}, "stream": False}, {}),
    ],
)
def test_accepted(fields, expected):
    sampling = parse(fields).sampling
    assert isinstance(sampling, Sampling)
    assert {name: getattr(sampling, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"messages": None}, "messages is null"),
        ({"messages": []}, "messages is"),
        ({"messages": "Hello"}, "messages is"),
        ({"messages": [{"role": "boss", "content": "Hello"}]}, r"messages\[0\] is"),
        ({"messages": [{"role": "user"}]}, r"messages\[0\].content is null"),
        ({"messages": [*HELLO, {"role": "user", "content": [{"type": "text"}]}]}, r"messages\[1\].content is"),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": [CALL]}]}, r"messages\[0\].tool_calls"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
            r"messages\[0\].tool_calls is .* arguments as JSON",
        ),
        ({"max_tokens": 0}, "max_tokens is 0; expected a whole number of at least 1"),
        ({"max_tokens": 1.5}, "max_tokens is 1.5"),
        ({"max_tokens": True}, "max_tokens is true"),
        ({"max_tokens": math.inf}, "max_tokens is Infinity"),
        ({"temperature": 2.5}, "temperature is 2.5; expected a number of at least 0 and at most 2"),
        ({"temperature": "hot"}, 'temperature is "hot"'),
        ({"top_p": -1}, "top_p is -1"),
        ({"top_k": -1}, "top_k is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"stop": [""]}, "stop is"),
        ({"stop": [1]}, "stop is"),
        ({"n": 0}, "n is 0"),
        ({"n": 17}, "n is 17; .* at most 16"),
        ({"presence_penalty": 2.5}, "presence_penalty is 2.5"),
        ({"response_format": "json"}, "response_format is"),
        ({"response_format": {"type": "json_schema"}}, "expected json_schema with a schema in it"),
        ({"response_format": {"type": "regex"}}, "expected regex with a pattern"),
        ({"tools": [{"type": "function"}]}, r"tools\[0\] is"),
        ({"tools": [TOOL], "tool_choice": "always"}, "tool_choice is"),
        ({"tool_choice": "required"}, "tool_choice is .* one of the request's tools"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice is"),
        (
            {"tools": [TOOL], "tool_choice": "required", "response_format": {"type": "json_object"}},
            "response_format is .* leave it out where tool_choice asks for a call",
        ),
        ({"custom_inputs": {"a": 1}}, "custom_inputs is"),
    ],
)
def test_refused(fields, message):
    with pytest.raises(MlflowException, match=message) as caught:
        parse(fields)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    assert len(str(caught.value)) < 250


def test_tools_are_refused_where_the_template_shows_none():
    with pytest.raises(MlflowException, match="this model's chat template shows none"):
        parse({"tools": [TOOL]}, takes_tools=False)
    assert parse({"tools": [TOOL]}).tools == [TOOL]
    assert parse({"tools": [TOOL], "tool_choice": "none"}).tools == []


def test_a_required_call_is_a_form():
    kind, schema = parse({"tools": [TOOL], "tool_choice": "required"}).sampling.form
    assert kind == "json_schema"
    assert schema["items"]["anyOf"][0]["properties"]["name"] == {"const": "weather"}


def test_a_conversation_with_calls_keeps_them():
    messages = [*HELLO, {"role": "assistant", "content": None, "tool_calls": [CALL]}, {"role": "tool", "content": "5"}]
    assert parse({"messages": messages}).messages[1] == {"role": "assistant", "content": "", "tool_calls": [CALL]}


@pytest.mark.parametrize(
    "text",
    [
        '[{"name": "weather", "arguments": {"city": "Oslo"}}]',
        '{"name": "weather", "arguments": {"city": "Oslo"}}',
        ' functools[{"name": "weather", "parameters": {"city": "Oslo"}}]',
        '<|tool_call|>[{"name": "weather", "arguments": {"city": "Oslo"}}]<|/tool_call|>',
    ],
)
def test_calls_are_read_in_each_form_that_phi_4_mini_writes(text):
    (call,) = parse_calls(text, ["weather"])
    assert call["type"] == "function" and call["id"].startswith("call_")
    assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == ("weather", {"city": "Oslo"})
    assert Choice.of(text, "stop", [TOOL]).finish_reason == "tool_calls"


@pytest.mark.parametrize("text", ["It is cold.", '[{"name": "other"}]', '[{"name": "weather"', "[1]", "[]", "7"])
def test_anything_else_is_text(text):
    assert Choice.of(text, "stop", [TOOL]) == Choice(text, "stop")


@pytest.mark.parametrize("text", ["", "<|tool", "functools[{", "[", "[ {", '{ "name'])
def test_what_may_become_calls_is_held_back(text):
    assert may_be_calls(text)


@pytest.mark.parametrize("text", ["fun!", "It", "<|end"])
def test_what_cannot_is_not(text):
    assert not may_be_calls(text)


def test_the_response_has_the_flavors_fields_in_its_order():
    answer = chat_response("a-model", [Choice("Hello", "stop")], 5, 2)
    assert list(answer) == ["id", "object", "created", "model", "usage", "choices"]
    assert answer["usage"] == {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    assert answer["choices"] == [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello"}}
    ]


def test_chunks_are_those_of_mlflows_own_type():
    from mlflow.types.llm import ChatCompletionChunk

    chunks, answer = Chunks("a-model"), chat_response("a-model", [Choice("Hello", "stop")], 5, 2)
    made = [
        chunks.text(0, "Hel"),
        chunks.text(0, "lo"),
        chunks.end(0, Choice("Hello", "stop")),
        chunks.usage(answer["usage"]),
    ]
    read = [ChatCompletionChunk.from_dict(chunk) for chunk in made]
    assert [chunk.id for chunk in read] == [read[0].id] * 4
    assert made[0]["choices"][0]["delta"] == {"role": "assistant", "content": "Hel"}
    assert made[1]["choices"][0]["delta"] == {"content": "lo"}
    assert (made[2]["choices"][0]["finish_reason"], read[3].usage.total_tokens) == ("stop", 7)


def test_a_rows_prompt_and_the_parameters_of_completions():
    assert parse_prompt({"prompt": "Hello"}) == "Hello"
    for prompt in (None, "", 5, math.nan):
        with pytest.raises(MlflowException, match="prompt is"):
            parse_prompt({"prompt": prompt})
    defaults = {"max_tokens": 9, "seed": -1, "response_format": "", "stop": np.array([])}
    assert parse_params(defaults, 7) == Sampling(max_tokens=9)
    form = json.dumps({"type": "regex", "regex": "a"})
    assert parse_params({"seed": 1, "response_format": form}, 7) == Sampling(7, seed=1, form=("regex", "a"))
    with pytest.raises(MlflowException, match="response_format is .* expected JSON"):
        parse_params({"response_format": "regex"}, 7)
