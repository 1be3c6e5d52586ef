"""What is observed of one request: flaws, refusals, times, and what is left out."""

import pytest

from steps.monitoring.scorers import declines, flaw
from steps.monitoring.served import observe
from tests.monitoring.samples import served

pytestmark = pytest.mark.unit
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but I can't help with that.",
        "I’m unable to answer this.",
        "Sorry, I cannot do that.",
        "As an AI language model, I have no opinion.",
        "I can't assist with that request.",
        "Unfortunately, I am unable to open links.",
    ],
)
def test_an_answer_that_declines(answer):
    assert declines(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "Paris",
        "Sorry to hear that. Here is what you can do.",
        "I can help with that.",
        'He said: "I cannot come."',
        "As an aid to memory, write it down.",
        "",
    ],
)
def test_an_answer_that_does_not_decline(answer):
    assert not declines(answer)


@pytest.mark.parametrize(
    ("question", "answer", "wanted", "expected"),
    [
        ("What is it?", "Paris.", None, ""),
        ("What is it?", "  \n", None, "empty"),
        ("List it.", "the same words again " * 20, None, "repetition"),
        ("List it.", "同じ言葉を繰り返します。" * 20, None, "repetition"),
        ("Numbers?", ", ".join(map(str, range(200))), None, ""),
        ("What is the capital of France?", "Столица Франции - Париж", None, "other script: Cyrillic"),
        ("Какая столица Франции?", "Paris est la capitale.", None, "other script: Latin"),
        ("Write Привет in Russian and in English", "Привет", None, ""),
        ("1 + 1?", "два", None, ""),
        ("Where?", '{"city": "Paris"}', JSON_SCHEMA, ""),
        ("Where?", '{"town": "Paris"}', JSON_SCHEMA, "wrong format: $: 'city' is a required property"),
        ("Where?", "Paris", {"type": "json_object"}, "wrong format: not JSON: "),
        ("Where?", "[1]", {"type": "json_object"}, "wrong format: $: [1] is not of type 'object'"),
        ("Where?", "Paris", {"type": "text"}, ""),
    ],
)
def test_flaws(question, answer, wanted, expected):
    found = flaw(question, answer, wanted)
    assert found.startswith(expected) and bool(found) == bool(expected)


def test_a_good_answer():
    observation = observe(served(0))
    assert observation.flaw == ""
    assert observation.values == {
        "refused": 0,
        "failed": 0,
        "prompt_tokens": 14,
        "answer_tokens": 5,
        "ttft_ms": 6,
        "tpot_ms": 2,
        "cut": 0,
        "declined": 0,
        "flawed": 0,
    }


@pytest.mark.parametrize(
    ("status", "refused", "failed"), [(400, 1, 0), (422, 1, 0), (429, 0, 1), (500, 0, 1), (503, 0, 1), (504, 0, 1)]
)
def test_a_request_without_an_answer_has_no_quality(status, refused, failed):
    values = observe(served(0, status=status, texts=(), prompt_tokens=None)).values
    assert values == {"refused": refused, "failed": failed}


def test_an_answer_that_was_cut_is_not_blamed_for_its_format():
    request = {"messages": [{"role": "user", "content": "Where?"}], "response_format": JSON_SCHEMA}
    observation = observe(served(0, body=request, texts=('{"city": "Pa',), finish_reasons=("length",)))
    assert (observation.values["cut"], observation.values["flawed"]) == (1, 0)
    assert observe(served(0, body=request, texts=('{"city": "Pa',))).values["flawed"] == 1


def test_an_answer_that_came_whole_has_no_times():
    values = observe(served(0, first_token_ms=14.0, total_ms=14.0)).values
    assert "ttft_ms" not in values and "tpot_ms" not in values
    assert observe(served(0, answer_tokens=(1,), first_token_ms=6.0, total_ms=6.0)).values["ttft_ms"] == 6


def test_several_choices_count_as_one_request():
    observation = observe(served(0, texts=("Paris", ""), answer_tokens=(2, 4), finish_reasons=("stop", "length")))
    assert observation.values["answer_tokens"] == 3
    assert (observation.values["cut"], observation.flaw) == (1, "empty")


def test_a_request_for_likelihoods_only_is_not_empty():
    assert observe(served(0, body={"prompt": "x", "max_tokens": 0, "echo": True}, texts=("",))).flaw == ""


@pytest.mark.parametrize(
    ("body", "question"),
    [
        ({"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]}, "Hi"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]}, "Hi"),
        ({"input": "Hi"}, "Hi"),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}]}, "Hi"),
        ({"prompt": ["A", "Hi"]}, "Hi"),
        ({"messages": [{"role": "user", "content": None}]}, ""),
        ({"messages": 7}, ""),
        ({}, ""),
    ],
)
def test_the_question_of_each_protocol(body, question):
    assert served(0, body=body).question == question


def test_the_format_of_each_protocol():
    assert served(0, body={"response_format": {"type": "json_object"}}).response_format == {"type": "json_object"}
    responses = {"text": {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}}}
    assert observe(served(0, body=responses, texts=('{"town": 1}',))).flaw.startswith("wrong format")
    assert observe(served(0, body=responses, texts=('{"city": "Paris"}',))).flaw == ""
    assert served(0, body={"response_format": "json"}).response_format is None
