"""The requests of both tasks: which values each field accepts, and which error names the field."""

import json
import math

import numpy as np
import pytest
from mlflow.exceptions import MlflowException

from steps.chat.api.requests import ChatRequest, Sampling, parse_chat, parse_params, parse_prompt
from steps.chat.api.response_format import JsonFormat, RegexFormat

pytestmark = pytest.mark.unit
HELLO = [{"role": "user", "content": "Hello"}]
TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}


def parse(fields: dict, supports_tools: bool = True) -> ChatRequest:
    return parse_chat({"messages": HELLO} | fields, default_max_tokens=7, supports_tools=supports_tools)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"max_tokens": 7, "temperature": 0.0, "stop": (), "seed": None, "response_format": None}),
        ({"max_tokens": 3}, {"max_tokens": 3}),
        ({"max_tokens": 3.0}, {"max_tokens": 3}),  # pandas turns an optional integer into this
        ({"temperature": math.nan, "stop": None}, {"temperature": 0.0, "stop": ()}),  # and an absent one into this
        ({"temperature": 0.7, "top_p": 0.9, "top_k": 40}, {"temperature": 0.7, "top_p": 0.9, "top_k": 40}),
        ({"stop": "end"}, {"stop": ("end",)}),
        ({"stop": np.array(["a", "b"])}, {"stop": ("a", "b")}),
        ({"seed": 0}, {"seed": 0}),
        ({"presence_penalty": -2, "frequency_penalty": 0.5}, {"presence_penalty": -2, "frequency_penalty": 0.5}),
        ({"response_format": {"type": "text"}}, {"response_format": None}),
        ({"response_format": {"type": "regex", "regex": "[a-z]+"}}, {"response_format": RegexFormat("[a-z]+")}),
        ({"response_format": {"type": "json_object"}}, {"response_format": JsonFormat({"type": "object"})}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "integer"}}}},
            {"response_format": JsonFormat({"type": "integer"})},
        ),
        ({"tools": np.array([]), "custom_inputs": {}, "stream": False}, {}),
    ],
)
def test_a_valid_request_is_accepted(fields, expected):
    sampling = parse(fields).sampling
    assert isinstance(sampling, Sampling)
    assert {name: getattr(sampling, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"messages": None}, "messages is null"),
        ({"messages": []}, "messages is"),
        ({"messages": "Hello"}, "messages is"),
        ({"messages": [{"role": "boss", "content": "Hello"}]}, r"messages\[0\].role is a string; expected system"),
        ({"messages": [{"role": "user"}]}, r"messages\[0\].content is null"),
        (
            {"messages": [*HELLO, {"role": "user", "content": [{"type": "text"}]}]},
            r"messages\[1\].content\[0\].text is null",
        ),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": [CALL]}]}, r"messages\[0\].tool_calls"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
            r"messages\[0\].tool_calls\[0\].function.arguments is a string; expected the arguments as JSON",
        ),
        ({"max_tokens": 0}, "max_tokens is 0; expected a whole number of at least 1"),
        ({"max_tokens": 1.5}, "max_tokens is 1.5"),
        ({"max_tokens": True}, "max_tokens is true"),
        ({"max_tokens": math.inf}, "max_tokens is Infinity"),
        ({"temperature": 2.5}, "temperature is 2.5; expected a number of at least 0 and at most 2"),
        ({"temperature": "hot"}, "temperature is a string"),
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
            "response_format is .* leave it out when tool_choice requires a call",
        ),
        ({"custom_inputs": {"a": 1}}, "custom_inputs is"),
    ],
)
def test_an_invalid_field_is_refused_by_its_name(fields, message):
    with pytest.raises(MlflowException, match=message) as caught:
        parse(fields)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    assert len(str(caught.value)) < 250


def test_tools_are_refused_if_the_chat_template_has_none():
    with pytest.raises(MlflowException, match="this model's chat template has no tools"):
        parse({"tools": [TOOL]}, supports_tools=False)
    assert parse({"tools": [TOOL]}).tools == [TOOL]
    assert parse({"tools": [TOOL], "tool_choice": "none"}).tools == []


def test_a_required_call_is_a_json_response_format():
    response_format = parse({"tools": [TOOL], "tool_choice": "required"}).sampling.response_format
    assert isinstance(response_format, JsonFormat)
    assert response_format.schema["items"]["anyOf"][0]["properties"]["name"] == {"const": "weather"}


def test_a_conversation_with_calls_keeps_them():
    messages = [*HELLO, {"role": "assistant", "content": None, "tool_calls": [CALL]}, {"role": "tool", "content": "5"}]
    assert parse({"messages": messages}).messages[1] == {"role": "assistant", "content": "", "tool_calls": [CALL]}


def test_a_rows_prompt_and_the_parameters_of_completions():
    assert parse_prompt({"prompt": "Hello"}) == "Hello"
    for prompt in (None, "", 5, math.nan):
        with pytest.raises(MlflowException, match="prompt is"):
            parse_prompt({"prompt": prompt})
    defaults = {"max_tokens": 9, "seed": -1, "response_format": "", "stop": np.array([])}
    assert parse_params(defaults, 7) == Sampling(max_tokens=9)
    regex = json.dumps({"type": "regex", "regex": "a"})
    assert parse_params({"seed": 1, "response_format": regex}, 7) == Sampling(
        7, seed=1, response_format=RegexFormat("a")
    )
    with pytest.raises(MlflowException, match="response_format is .* expected JSON"):
        parse_params({"response_format": "regex"}, 7)
