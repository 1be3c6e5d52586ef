"""Requests as clients send them: each is answered, or refused in one line that names the field and repeats nothing."""

import json
import time

import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from tests.chat.client_requests import ANSWERED, PARIS, REFUSED, WITH_TOOLS
from tests.chat.models import CHAT, FRANCE, TOOL, chat, content

pytestmark = pytest.mark.model


@pytest.mark.parametrize("name", PARIS)
def test_a_legal_request_is_answered_right(models, name):
    (response,) = models[CHAT].predict(PARIS[name])
    assert content(response) == "Paris"


@pytest.mark.parametrize("name", ANSWERED)
def test_a_legal_request_is_answered(models, name):
    (response,) = models[CHAT].predict(ANSWERED[name] | {"max_tokens": 8})
    assert response["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize("name", WITH_TOOLS)
def test_a_conversation_with_calls_is_answered_where_the_template_shows_tools(models, name):
    (response,) = models["tools"].predict(WITH_TOOLS[name] | {"tools": [TOOL], "max_tokens": 4})
    assert response["usage"]["completion_tokens"] > 0
    with pytest.raises(MlflowException, match="this model's chat template drops role tool"):
        models[CHAT].predict(WITH_TOOLS[name])


@pytest.mark.parametrize("name", REFUSED)
def test_a_request_is_refused_by_the_name_of_its_field(models, name):
    fields, param, message = REFUSED[name]
    started = time.monotonic()
    with pytest.raises(MlflowException) as caught:
        models[CHAT].predict({"messages": FRANCE} | fields)
    assert time.monotonic() - started < 5
    error = caught.value
    assert error.param == param and message in error.message and error.error_code == "INVALID_PARAMETER_VALUE"
    assert len(error.message) < 200 and len(error.message.splitlines()) == 1
    assert "secret" not in error.message and "France" not in error.message
    assert content(chat(models[CHAT])) == "Paris"


def test_a_prompt_that_is_too_long_has_openais_code(models):
    with pytest.raises(MlflowException) as caught:
        models[CHAT].predict(REFUSED["too long"][0])
    assert json.loads(caught.value.serialize_as_json())["code"] == "context_length_exceeded"


def test_the_message_of_a_refusal_stays_as_it_is(models):
    """MLflow's scoring server puts the whole request before the message."""
    with pytest.raises(MlflowException) as caught:
        chat(models[CHAT], temperature=7)
    caught.value.message = f"Failed to predict data '{FRANCE}'. \nError: {caught.value.message}"
    assert caught.value.message == "temperature is 7; expected a number of at least 0 and at most 2"
    assert "France" not in caught.value.serialize_as_json()


def test_a_row_of_a_dataframe_may_lack_a_field_that_another_has(models):
    rows = [{"messages": FRANCE}, {"messages": FRANCE, "max_tokens": 1, "stop": ["x"], "logprobs": True, "n": 2}]
    first, second = models[CHAT].predict(pd.DataFrame(rows))
    assert (content(first), first["choices"][0]["logprobs"]) == ("Paris", None)
    assert second["usage"]["completion_tokens"] == 2 and len(second["choices"]) == 2


def test_a_bad_row_among_many_is_named_by_its_number(models):
    rows = [{"messages": FRANCE}, {"messages": FRANCE}, {"messages": [{"role": "user", "content": None}]}]
    with pytest.raises(MlflowException, match=r"^row 2: messages\[0\].content is null") as caught:
        models[CHAT].predict(pd.DataFrame(rows))
    assert caught.value.param == "messages[0].content"
    with pytest.raises(MlflowException, match=r"^row 1: the prompt has \d+ tokens"):
        models[CHAT].predict([{"messages": FRANCE}, REFUSED["too long"][0]])


def test_the_answer_goes_on_with_a_message_that_is_not_complete(models):
    begun = [*FRANCE, {"role": "assistant", "content": "Par"}]
    assert content(chat(models[CHAT], begun, continue_final_message=True)) == "is"


def test_fields_of_local_servers_change_the_answer(models):
    model = models[CHAT]
    paris = chat(model, logprobs=True)["choices"][0]["logprobs"]["content"]
    assert [token["token"] for token in paris] == ["Par", "is"]
    assert bytes(paris[0]["bytes"]) == b"Par" and paris[0]["top_logprobs"] == []
    engine = model.unwrap_python_model()._service.engine
    first, second = engine.tokenizer.encode("Paris")[-2:]
    assert content(chat(model, logit_bias={str(first): -100})) != "Paris"
    assert content(chat(model, stop_token_ids=[second])) == "Par"
    long = chat(model, ignore_eos=True, max_tokens=12)
    assert (long["usage"]["completion_tokens"], long["choices"][0]["finish_reason"]) == (12, "length")
    unlikely = chat(model, temperature=2, min_p=1.0, seed=3)
    assert content(unlikely) == "Paris", "min_p 1 leaves the most likely token only"
    count = [{"role": "user", "content": "Count from 1 to 40."}]
    assert content(chat(model, count, repetition_penalty=5)) != content(chat(model, count))
    assert chat(model, max_tokens=3)["choices"][0]["finish_reason"] == "stop", "the end token was the last allowed one"
    assert chat(model, max_tokens=9, max_completion_tokens=2)["usage"]["completion_tokens"] == 2


def test_variables_reach_the_chat_template(models):
    assert content(chat(models[CHAT], chat_template_kwargs={"unused": 1})) == "Paris"
