"""The `llm/v1/chat` request: what is accepted, and what is refused by the field's name."""

import math

import numpy as np
import pytest
from mlflow.exceptions import MlflowException

from steps.chat.protocol import ChatRequest, parse_request, response

HELLO = [{"role": "user", "content": "Hello"}]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"max_tokens": 7, "temperature": 0.0, "stop": ()}),
        ({"max_tokens": 3}, {"max_tokens": 3}),
        ({"max_tokens": 3.0}, {"max_tokens": 3}),  # what pandas makes of an optional integer
        ({"temperature": math.nan, "stop": None}, {"temperature": 0.0, "stop": ()}),  # and of an absent one
        ({"temperature": 0.7, "top_p": 0.9, "top_k": 40}, {"temperature": 0.7, "top_p": 0.9, "top_k": 40}),
        ({"stop": "end"}, {"stop": ("end",)}),
        ({"stop": np.array(["a", "b"])}, {"stop": ("a", "b")}),
        ({"tools": np.array([]), "custom_inputs": {}}, {}),
        ({"n": 1, "stream": False, "presence_penalty": 0.0}, {}),
    ],
)
def test_accepted(fields, expected):
    request = parse_request({"messages": HELLO} | fields, default_max_tokens=7)
    assert isinstance(request, ChatRequest)
    assert {name: getattr(request, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"messages": None}, "messages is null"),
        ({"messages": []}, "messages is"),
        ({"messages": "Hello"}, "messages is"),
        ({"messages": [{"role": "boss", "content": "Hello"}]}, r"messages\[0\] is"),
        ({"messages": [{"role": "user"}]}, r"messages\[0\].content is null"),
        ({"max_tokens": 0}, "max_tokens is 0; expected a whole number of at least 1"),
        ({"max_tokens": 1.5}, "max_tokens is 1.5"),
        ({"max_tokens": True}, "max_tokens is true"),
        ({"temperature": 2.5}, "temperature is 2.5; expected a number of at least 0 and at most 2"),
        ({"temperature": "hot"}, 'temperature is "hot"'),
        ({"top_p": -1}, "top_p is -1"),
        ({"top_k": -1}, "top_k is -1"),
        ({"stop": [""]}, "stop is"),
        ({"stop": [1]}, "stop is"),
        ({"n": 2}, "n is 2"),
        ({"stream": True}, "stream is true"),
        ({"presence_penalty": 0.5}, "presence_penalty is 0.5"),
        ({"tools": [{"type": "function"}]}, "tools is"),
        ({"tools": np.array([{"type": "function"}])}, "tools is"),
        ({"max_tokens": math.inf}, "max_tokens is Infinity"),
    ],
)
def test_refused(fields, message):
    with pytest.raises(MlflowException, match=message) as caught:
        parse_request({"messages": HELLO} | fields, default_max_tokens=7)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    assert len(str(caught.value)) < 250


def test_the_response_has_the_flavors_fields_in_its_order():
    answer = response("a-model", "Hello", 5, 2, "stop")
    assert list(answer) == ["id", "object", "created", "model", "usage", "choices"]
    assert answer["usage"] == {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
