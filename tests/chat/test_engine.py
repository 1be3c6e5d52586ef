"""The engine on real ONNX models, against PyTorch and against itself."""

import json
import threading

import pytest
from mlflow.exceptions import MlflowException

from steps.chat.engine import Engine
from steps.chat.protocol import parse_request
from steps.chat.threads import usable_cpus
from tests.conftest import ROOT

QA = [json.loads(line) for line in (ROOT / "params/evalsets/tiny-qa.jsonl").read_text().splitlines()]


def ask(engine: Engine, question: str, **fields):
    """One user turn."""
    messages = [{"role": "user", "content": question}]
    return engine.answer(parse_request({"messages": messages} | fields, default_max_tokens=128))


@pytest.fixture(scope="module")
def engine(converted) -> Engine:
    """The int4 model."""
    return Engine(converted["genai int4"])


@pytest.mark.parametrize("variant", ["genai int4", "genai int8", "genai fp32", "optimum fp32"])
def test_every_variant_knows_the_whole_set(converted, variant):
    loaded = Engine(converted[variant])
    wrong = [row for row in QA if ask(loaded, row["messages"][0]["content"]).text != row["expected"]]
    assert not wrong


def test_usage_counts_the_token_that_ends_the_answer(engine):
    done = ask(engine, "What is the capital of France?")
    assert (done.text, done.completion_tokens, done.finish_reason) == ("Paris", 3, "stop")
    assert done.prompt_tokens == 15


def test_max_tokens_cuts_an_answer_off(engine):
    done = ask(engine, "Count from 1 to 40.", max_tokens=5)
    assert (done.completion_tokens, done.finish_reason) == (5, "length")
    assert "1 2 3 4 5 6 7 8 9 10".startswith(done.text)


@pytest.mark.parametrize("stop", ["7", " 7 8", ["nothing", "7"], ["8", "7"]])
def test_a_stop_string_ends_the_answer_and_is_not_in_it(engine, stop):
    done = ask(engine, "Count from 1 to 40.", stop=stop)
    assert done.text.strip() == "1 2 3 4 5 6"
    assert done.finish_reason == "stop"


def test_accents_survive_the_tokens(engine):
    assert ask(engine, "What is the capital of Moldova?").text == "Chișinău"


def test_a_prompt_that_leaves_no_room_says_so(engine):
    with pytest.raises(MlflowException, match=r"the prompt has \d{4} tokens; at most 2047 fit"):
        ask(engine, "word " * 2100)


def test_sampling_is_only_done_on_request(engine):
    assert len({ask(engine, "Who are you?", max_tokens=24).text for _ in range(3)}) == 1
    assert len({ask(engine, "Who are you?", max_tokens=24, temperature=2.0).text for _ in range(6)}) > 1


def test_threads_that_ask_at_once_get_their_own_answers(engine):
    rows, answers = QA[:24], {}

    def work(index: int) -> None:
        answers[index] = ask(engine, rows[index]["messages"][0]["content"]).text

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(rows))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answers[i] for i in range(len(rows))] == [row["expected"] for row in rows]


def test_a_refused_request_leaves_the_engine_usable(engine):
    with pytest.raises(MlflowException):
        ask(engine, "word " * 2100)
    assert ask(engine, "What is 2 plus 2?").text == "4"


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, None),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "100000 100000"}, 1),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
    ],
)
def test_threads_follow_affinity_and_the_cgroups_quota(tmp_path, files, cpus):
    import os

    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cpus(tmp_path) == (cpus or len(os.sched_getaffinity(0)))
