"""The engine on real ONNX models, one answer at a time."""

import json

import pytest
from mlflow.exceptions import MlflowException

from steps.chat.api.requests import Sampling
from steps.chat.batching.engine import Engine
from steps.chat.runtime.cpus import usable_cpus
from steps.chat.settings import Settings
from tests.chat.batching.asking import COUNT, DIGITS, QA, QUESTIONS, ask, start

pytestmark = pytest.mark.model


@pytest.mark.parametrize("variant", ["genai int4", "genai int8", "genai fp32", "optimum fp32"])
def test_every_variant_answers_the_whole_set_one_by_one_and_all_at_once(converted, variant):
    loaded = Engine(converted[variant], Settings(queue=len(QA)))
    alone = [ask(loaded, question).text for question in QUESTIONS]
    generations = [start(loaded, question) for question in QUESTIONS]
    together = [generation.wait().text for generation in generations]
    assert alone == together == [row["expected"] for row in QA]


def test_usage_counts_the_token_that_ends_the_answer(int4_engine):
    done = ask(int4_engine, "What is the capital of France?")
    assert (done.text, done.completion_tokens, done.finish_reason) == ("Paris", 3, "stop")
    assert done.prompt_tokens == 15
    assert 0 <= done.queued_s <= done.first_token_s <= done.total_s


def test_max_tokens_cuts_an_answer_off(int4_engine):
    done = ask(int4_engine, COUNT, max_tokens=5)
    assert (done.completion_tokens, done.finish_reason) == (5, "length")
    assert "1 2 3 4 5 6 7 8 9 10".startswith(done.text)


@pytest.mark.parametrize("stop", ["7", " 7 8", ["nothing", "7"], ["8", "7"]])
def test_a_stop_string_ends_the_answer_and_is_not_in_it(int4_engine, stop):
    pieces = [*(answer := start(int4_engine, COUNT, stop=stop))]
    assert "".join(pieces).strip() == answer.completion.text.strip() == "1 2 3 4 5 6"
    assert answer.completion.finish_reason == "stop"


def test_a_character_of_several_tokens_is_shown_whole(int4_engine):
    pieces = [*(answer := start(int4_engine, "What is the capital of Moldova?"))]
    assert "".join(pieces) == answer.completion.text == "Chișinău"
    assert "\ufffd" not in "".join(pieces) and len(pieces) > 1


def test_a_prompt_that_leaves_no_room_for_an_answer_is_refused(int4_engine):
    with pytest.raises(MlflowException, match=r"the prompt has \d{4} tokens; at most 2047 fit"):
        ask(int4_engine, "word " * 2100)
    assert ask(int4_engine, "What is 2 plus 2?").text == "4"


def test_an_answer_ends_where_the_context_does(int4_engine):
    prompt = int4_engine.tokenizer.encode("1 2 3 4 5 6 7 8 9 ")
    prompt = (prompt * 300)[: int4_engine.context_length - 5]
    done = int4_engine.submit(prompt, Sampling(max_tokens=100, response_format=DIGITS)).wait()
    assert (done.completion_tokens, done.finish_reason) == (5, "length")


def test_answers_differ_only_if_a_temperature_is_asked_for(int4_engine):
    assert len({ask(int4_engine, "Who are you?", max_tokens=24).text for _ in range(3)}) == 1
    assert len({ask(int4_engine, "Who are you?", max_tokens=24, temperature=2.0).text for _ in range(6)}) > 1


def test_the_same_seed_gives_the_same_text_while_others_ask(fp32_engine):
    def run() -> str:
        return ask(fp32_engine, "Who are you?", max_tokens=24, temperature=2.0, seed=5).text

    alone = run()
    others = [start(fp32_engine, COUNT) for _ in range(5)]
    assert run() == alone
    assert all(other.wait().text == others[0].completion.text for other in others)
    assert (
        len({ask(fp32_engine, "Who are you?", max_tokens=24, temperature=2.0, seed=seed).text for seed in range(6)}) > 1
    )


def test_penalties_change_the_answer(fp32_engine):
    plain = ask(fp32_engine, COUNT, max_tokens=60)
    penalised = ask(fp32_engine, COUNT, max_tokens=60, presence_penalty=2.0, frequency_penalty=2.0)
    assert plain.text != penalised.text


@pytest.mark.parametrize(
    ("response_format", "check"),
    [
        ({"type": "regex", "regex": "[A-Z]{3}-[0-9]{2}"}, lambda text: text[:3].isupper() and text[4:].isdigit()),
        (
            {
                "type": "json_schema",
                "json_schema": {
                    "schema": {
                        "type": "object",
                        "properties": {"city": {"enum": ["Paris", "Rome"]}, "sure": {"type": "boolean"}},
                        "required": ["city", "sure"],
                        "additionalProperties": False,
                    }
                },
            },
            lambda text: set(json.loads(text)) == {"city", "sure"},
        ),
    ],
)
def test_an_answer_matches_its_response_format(int4_engine, response_format, check):
    done = ask(int4_engine, "What is the capital of France?", response_format=response_format)
    assert check(done.text) and done.finish_reason == "stop"


@pytest.mark.parametrize(
    "response_format",
    [
        {"type": "regex", "regex": "(("},
        {"type": "json_schema", "json_schema": {"schema": {"type": "strange"}}},
    ],
)
def test_a_response_format_that_is_not_supported_is_refused(int4_engine, response_format):
    with pytest.raises(MlflowException, match=r"response_format: the (pattern|schema) is not supported: ") as caught:
        ask(int4_engine, "Who are you?", response_format=response_format)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


def test_an_execution_provider_that_is_not_there_is_named_with_those_that_are(converted):
    for provider in ("cuda", "npu"):
        with pytest.raises(MlflowException, match=rf"provider is '{provider}'; this installation .* has: cpu"):
            Engine(converted["genai int4"], Settings(provider=provider))


def test_threads_are_those_asked_for(converted):
    assert Engine(converted["genai int4"], Settings(threads=1)).threads == 1
    assert Engine(converted["genai int4"]).threads == usable_cpus()
