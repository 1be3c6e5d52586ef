"""The logged model of the task llm/v1/chat, as its users call it: pyfunc, DataFrames and streams."""

import json

import mlflow
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException

from tests.chat.models import CHAT, FRANCE, TOOL, chat, content

pytestmark = pytest.mark.model
COUNT = [{"role": "user", "content": "Count from 1 to 40."}]


def test_the_signature_has_outputs_alone_so_that_mlflow_passes_every_request_on(models):
    signature = models[CHAT].metadata.signature
    assert signature.inputs is None
    assert signature.outputs.input_names() == ["id", "object", "created", "model", "choices", "usage"]


def test_a_response_has_the_answer_and_its_usage(models):
    response = chat(models[CHAT])
    message = {"role": "assistant", "content": "Paris", "refusal": None}
    assert response["choices"] == [{"index": 0, "finish_reason": "stop", "message": message, "logprobs": None}]
    assert (response["model"], response["object"]) == ("tiny-phi3", "chat.completion")
    assert response["id"].startswith("chatcmpl-") and response["system_fingerprint"].startswith("fp_")
    counts = {"prompt_tokens": 15, "completion_tokens": 3, "total_tokens": 18}
    assert response["usage"] == counts | {"prompt_tokens_details": {"cached_tokens": 0}}
    again = chat(models[CHAT])
    assert again["usage"] == counts | {"prompt_tokens_details": {"cached_tokens": 14}}
    assert again["id"] != response["id"] and again["system_fingerprint"] == response["system_fingerprint"]


def test_every_field_reaches_the_engine_through_mlflow(models):
    model = models[CHAT]
    assert chat(model, COUNT, max_tokens=4)["choices"][0]["finish_reason"] == "length"
    assert content(chat(model, COUNT, stop="7")).strip() == "1 2 3 4 5 6"
    assert content(chat(model, COUNT, stop=["9", "7"])).strip() == "1 2 3 4 5 6"
    sampled = [chat(model, temperature=2.0, seed=4, max_tokens=20, top_k=50, top_p=0.9) for _ in range(2)]
    assert sampled[0]["choices"] == sampled[1]["choices"]
    response_format = {
        "type": "json_schema",
        "json_schema": {"schema": {"type": "array", "items": {"type": "integer"}}},
    }
    formatted = content(chat(model, response_format=response_format, max_tokens=200))
    assert isinstance(json.loads(formatted), list)
    whole = {"temperature": 0, "top_p": 1, "presence_penalty": 0, "frequency_penalty": 0}
    assert chat(model, COUNT, **whole)["choices"] == chat(model, COUNT)["choices"]
    with pytest.raises(MlflowException, match="temperature is 7; expected a number of at least 0 and at most 2"):
        chat(model, temperature=7)
    penalised = chat(model, COUNT, presence_penalty=2.0, frequency_penalty=2.0)
    assert penalised["choices"] != chat(model, COUNT)["choices"]


def test_n_answers_are_choices_of_one_response(models):
    response = chat(models[CHAT], n=3, temperature=2.0, seed=4, max_tokens=20)
    assert [choice["index"] for choice in response["choices"]] == [0, 1, 2]
    assert len({choice["message"]["content"] for choice in response["choices"]}) > 1
    assert response["usage"]["prompt_tokens"] == 15


def test_rows_are_answered_in_their_order(models):
    cities = ["France", "Moldova", "Norway"]
    rows = [{"messages": [{"role": "user", "content": f"What is the capital of {city}?"}]} for city in cities]
    responses = models[CHAT].predict(pd.DataFrame(rows))
    assert [content(response) for response in responses] == ["Paris", "Chișinău", "Oslo"]


def test_more_rows_than_the_queue_holds_wait_and_more_choices_than_it_holds_are_refused(model_folders):
    model = mlflow.pyfunc.load_model(str(model_folders[CHAT]), model_config={"parallel": 1, "queue": 2})
    responses = model.predict(pd.DataFrame([{"messages": FRANCE}] * 9))
    assert [content(response) for response in responses] == ["Paris"] * 9
    with pytest.raises(MlflowException, match="requests are waiting"):
        model.predict({"messages": FRANCE, "n": 16, "temperature": 1.0, "max_tokens": 100})
    assert content(chat(model)) == "Paris"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n": 40}, "n is 40"),
        ({"tools": [TOOL]}, "tools is a list; this model's chat template has no tools"),
        ({"stream": True}, "call predict_stream"),
        ({"messages": [{"role": "user", "content": "word " * 2100}]}, "at most 2047 fit"),
    ],
)
def test_a_request_that_cannot_be_answered_is_refused_and_the_next_is_answered(models, fields, message):
    with pytest.raises(MlflowException, match=message):
        models[CHAT].predict({"messages": FRANCE} | fields)
    assert content(chat(models[CHAT])) == "Paris"


REQUESTS = st.fixed_dictionaries(
    {
        "messages": st.lists(
            st.fixed_dictionaries(
                {
                    "role": st.sampled_from(["system", "user", "assistant", "tool", "boss"]),
                    "content": st.one_of(
                        st.text(max_size=40), st.sampled_from(["Count from 1 to 40.", "Who are you?"])
                    ),
                }
            ),
            max_size=4,
        )
    },
    optional={
        "max_tokens": st.integers(0, 40),
        "temperature": st.floats(0, 2),
        "top_p": st.floats(0, 1),
        "top_k": st.integers(-1, 50),
        "n": st.integers(0, 3),
        "stop": st.lists(st.text(max_size=3), max_size=2),
        "seed": st.integers(0, 2**40),
        "presence_penalty": st.floats(-3, 3),
        "response_format": st.sampled_from(
            [{"type": "json_object"}, {"type": "regex", "regex": "[a-z]{2}"}, {"type": "x"}]
        ),
    },
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(REQUESTS)
def test_any_request_is_answered_or_refused_and_its_stream_gives_the_same(models, request_):
    request = {"seed": 1} | request_
    try:
        response = models[CHAT].predict(request)[0]
    except MlflowException as error:
        assert len(str(error).splitlines()) == 1 and error.error_code in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
        with pytest.raises(MlflowException):
            list(models[CHAT].predict_stream(request))
        return
    chunks = list(models[CHAT].predict_stream(request | {"stream_options": {"include_usage": True}}))
    streamed = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    for choice in response["choices"]:
        parts = [part for part in streamed if part["index"] == choice["index"]]
        text = "".join(part["delta"].get("content") or "" for part in parts)
        assert (text, parts[-1]["finish_reason"]) == (choice["message"]["content"], choice["finish_reason"])
        assert all(part["finish_reason"] is None for part in parts[:-1])
        assert parts[0]["delta"] == {"role": "assistant", "content": ""}
    assert chunks[-1]["usage"]["completion_tokens"] == response["usage"]["completion_tokens"]


def test_a_stream_that_its_caller_closes_frees_its_row(models):
    digits = {"type": "regex", "regex": "[0-9]{1500}"}
    chunks = models[CHAT].predict_stream({"messages": FRANCE, "response_format": digits, "max_tokens": 1500})
    next(chunks), next(chunks)
    chunks.close()
    engine = models[CHAT].unwrap_python_model()._service.engine
    assert content(chat(models[CHAT])) == "Paris"
    assert engine._scheduler.cache.active == []


def test_the_prompt_shows_tools_and_a_required_call_is_a_tool_call(models):
    model = models["tools"]
    without, with_tools = chat(model, max_tokens=4), chat(model, tools=[TOOL], max_tokens=4)
    assert with_tools["usage"]["prompt_tokens"] > without["usage"]["prompt_tokens"] + 20
    unseen = chat(model, tools=[TOOL], tool_choice="none", max_tokens=4)
    assert unseen["usage"]["prompt_tokens"] == without["usage"]["prompt_tokens"]
    for choice in ("required", {"type": "function", "function": {"name": "weather"}}):
        answer = chat(model, tools=[TOOL], tool_choice=choice, max_tokens=200)["choices"][0]
        (call, *_) = answer["message"]["tool_calls"]
        assert answer["finish_reason"] == "tool_calls" and answer["message"]["content"] is None
        assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == ("weather", {"city": "Oslo"})
    conversation = [
        *FRANCE,
        {"role": "assistant", "tool_calls": answer["message"]["tool_calls"]},
        {"role": "tool", "content": "5 degrees", "tool_call_id": call["id"]},
    ]
    assert chat(model, conversation, tools=[TOOL], max_tokens=4)["usage"]["completion_tokens"] > 0


def test_streamed_calls_come_as_name_and_then_fragments_and_not_as_text(models):
    request = {"messages": FRANCE, "tools": [TOOL], "tool_choice": "required", "max_tokens": 200}
    chunks = list(models["tools"].predict_stream(request | {"parallel_tool_calls": False}))
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""} and deltas[-1] == {}
    assert all("content" not in delta for delta in deltas[1:])
    (first,), *rest = [delta["tool_calls"] for delta in deltas[1:-1]]
    assert first["function"] == {"name": "weather", "arguments": ""} and first["id"].startswith("call_")
    assert all(list(fragment) == ["index", "function"] for (fragment,) in rest)
    arguments = "".join(fragment["function"]["arguments"] for (fragment,) in rest)
    assert json.loads(arguments) == {"city": "Oslo"} and first["index"] == 0
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
