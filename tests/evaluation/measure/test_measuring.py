"""Models with known answers, in real processes: does the measuring measure?"""

import mlflow
import numpy as np
import pytest

from steps.common.errors import StepError
from steps.evaluation import summary as entries
from steps.evaluation.inputs.effort import Effort
from steps.evaluation.inputs.evalset import Item
from steps.evaluation.inputs.prompts import make_prompts, make_windows
from steps.evaluation.measure import speed
from steps.evaluation.measure.measuring import Measured, Models, Reference, measure_models
from steps.evaluation.measure.model_process import ModelProcess
from tests.conftest import TINY

# Echoes the question, but answers "wrong" where it begins with "bad"; sleeps 20 ms, and 2 ms for each further token.
MODEL = """
import os
import threading
import time
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

class Echo(PythonModel):
    def predict(self, context, model_input, params=None):
        answers = []
        for row in model_input.to_dict(orient="records"):
            question = row["messages"][-1]["content"]
            if question == "die":
                os.kill(os.getpid(), 9)
            if question.startswith("fail"):
                raise ValueError("as it was told")
            tokens = int(row["max_tokens"])
            time.sleep((0.020 if question not in known else 0) + 0.002 * (tokens - 1))
            known.add(question)  # as a model that keeps the prompts that it has read
            text = "wrong" if question.startswith("bad") else question
            usage = {"prompt_tokens": 10, "completion_tokens": tokens}
            answers.append({"choices": [{"message": {"content": text}}], "usage": usage})
        return answers

known = set()
set_model(Echo())
"""
EFFORT = Effort(50, 100, (10, 20), 9, 6, 60.0, concurrency=(1, 4), requests=4)


@pytest.fixture(scope="module")
def echo(tmp_path_factory) -> str:
    """The path of the saved model."""
    from mlflow.models import ModelSignature
    from mlflow.types.llm import CHAT_MODEL_INPUT_SCHEMA

    folder = tmp_path_factory.mktemp("echo")
    (folder / "echo.py").write_text(MODEL)
    mlflow.pyfunc.save_model(
        folder / "model",
        python_model=str(folder / "echo.py"),
        signature=ModelSignature(CHAT_MODEL_INPUT_SCHEMA),
        pip_requirements=["mlflow"],
    )
    return str(folder / "model")


def messages(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def items(*questions: str) -> list[Item]:
    return [Item(messages(question), question) for question in questions]


def reference(asked: list[Item], tmp_path) -> Reference:
    """Without a text; prompts as make_prompts makes them, of two lengths."""
    prompts = [[messages(f"{length} {n}") for n in range(speed.prompts_needed(EFFORT))] for length in (10, 20)]
    return Reference([item.expected for item in asked], [], prompts, tmp_path / "none", 0)


@pytest.fixture(scope="module")
def measured(echo, tmp_path_factory):
    """Two of the same model, timed in turn, and asked 43 questions that it answers and 7 that it does not."""
    asked = items(*[f"good {i}" for i in range(43)], *[f"bad {i}" for i in range(7)])
    scratch, seen = tmp_path_factory.mktemp("measured"), []
    with Models({"one": echo, "two": echo, "gone": str(scratch / "gone")}, scratch) as models:
        found, broken, together = measure_models(
            models,
            ["gone"],
            reference(asked, scratch),
            EFFORT,
            lambda label, answer: [answer(item.messages) for item in asked],
            scratch,
            lambda: seen.append(1),
        )
    assert together
    assert len(seen) == speed.steps(EFFORT, 2)
    assert list(found) == ["one", "two"]
    assert "No such" in broken["gone"] or "not" in broken["gone"], broken
    return asked, found


def test_seven_wrong_of_fifty_is_an_accuracy_of_86_percent(measured, tmp_path):
    asked, found = measured
    figures = entries.figures(found["one"], asked, reference(asked, tmp_path), 1e9)
    assert figures["metrics"]["accuracy"] == 0.86
    assert figures["metrics"]["agreement"] == 0.86
    assert figures["intervals"]["accuracy"] == pytest.approx((0.738, 0.931), abs=1e-3)
    assert figures["metrics"].get("kl_mean") is None
    worst = entries.worst(asked, reference(asked, tmp_path), found)
    assert [row["question"] for row in worst] == [f"bad {i}" for i in range(7)]
    assert worst[0]["answers"]["one"] == {"text": "wrong", "right": False, "why": "expected 'bad 0'"}


def test_a_sleeping_model_has_the_latency_that_it_sleeps(measured):
    """At least that, and on a busy machine more."""
    for one in measured[1].values():
        metrics, intervals = speed.figures(one.speed, one.throughput)
        assert 20 <= metrics["ttft_ms"] <= metrics["ttft_p95_ms"]
        assert min(sample["whole_s"] for sample in one.speed) >= 8 * 0.002
        assert 1 < metrics["tpot_ms"] <= metrics["tpot_p95_ms"], "a difference of two times, each of which scatters"
        assert metrics["prefill_tokens_per_s"] <= 10 / 0.020
        assert intervals["ttft_ms"][0] >= 20
        # a request of 9 tokens sleeps 36 ms: one client gets fewer than 28 a second, and four no more than 4 x 28
        assert metrics["requests_per_s_1"] <= 28
        assert metrics["requests_per_s_1"] < metrics["requests_per_s_4"] <= 112
        assert {sample["tokens"] for sample in one.speed} == {9}
        assert len(one.speed) == EFFORT.repetitions * 2
        assert one.peak_rss_bytes > 50e6
        assert one.load_s > 0
        assert one.first_call_s >= 0.02


def test_two_runs_of_the_same_model_are_not_different(measured):
    asked, found = measured
    (pair,) = entries.comparisons({label: entries.evidence(one, asked) for label, one in found.items()})
    assert (pair["accuracy_difference"], pair["mcnemar_p"]) == (0, 1)
    assert pair["accuracy_interval"] == (0, 0)
    low, high = pair["speed_interval"]
    assert low <= pair["speed_ratio"] <= high


def test_memory_is_the_workers_own_and_not_its_parents(echo, tmp_path):
    """Linux lets a child inherit its parent's peak in getrusage."""
    ballast = bytearray(1 << 30)
    ballast[::4096] = b"x" * len(ballast[::4096])
    with ModelProcess("a model", tmp_path) as process:
        process.call("fetch", uri=echo)
        process.call("load", endless=False)
        assert process.call("peak_memory") < len(ballast)


def run(uri: str, tmp_path, *questions: str) -> dict[str, Measured]:
    asked = items(*questions)
    with Models({"one": uri}, tmp_path) as models:
        return measure_models(
            models,
            [],
            reference(asked, tmp_path),
            EFFORT,
            lambda label, answer: [answer(item.messages) for item in asked],
            tmp_path,
            lambda: None,
        )[0]


def test_a_model_that_is_not_there_is_named_with_the_cause(tmp_path):
    with pytest.raises(StepError, match="no-such-model could not be evaluated: .*"):
        run(str(tmp_path / "no-such-model"), tmp_path, "a")


def test_a_model_whose_process_is_killed_is_named(echo, tmp_path):
    with pytest.raises(StepError, match="could not be evaluated: its process ended with signal 9"):
        run(echo, tmp_path, "die")


def test_failing_at_one_question_is_a_wrong_answer_and_at_all_of_them_an_error(echo, tmp_path):
    found = run(echo, tmp_path, "a", "fail")
    assert entries.mistakes(found["one"], items("a", "fail")) == ["", "ValueError: as it was told"]
    with pytest.raises(StepError, match="it fails at every question: ValueError: as it was told"):
        run(echo, tmp_path, "fail 1", "fail 2")


def sample(rep: int, whole_s: float, tokens: int | None = 33, ttft_s: float = 0.1) -> dict:
    return {"rep": rep, "prompt_tokens": 50, "ttft_s": ttft_s, "known_s": 0.1, "whole_s": whole_s, "tokens": tokens}


def test_decode_is_the_tokens_after_the_first_over_the_time_after_the_first():
    metrics, _ = speed.figures([sample(0, 3.3), sample(1, 1.7), sample(2, 0.9)], [])
    assert metrics["decode_tokens_per_s"] == pytest.approx(20)
    assert metrics["tpot_ms"] == pytest.approx(50)
    assert metrics["prefill_tokens_per_s"] == pytest.approx(500)


@pytest.mark.parametrize("tokens", [3, None])
def test_answers_that_are_too_short_or_not_counted_give_no_decode_figure(tokens):
    metrics, intervals = speed.figures([sample(0, 0.2, tokens), sample(1, 0.2, tokens)], [])
    assert metrics["decode_tokens_per_s"] is None
    assert intervals["decode_tokens_per_s"] is None
    assert metrics["ttft_ms"] == pytest.approx(100)


def test_failed_requests_give_no_rate():
    failed = {"concurrency": 4, "requests": 8, "seconds": 1.0, "output_tokens": 9, "failed": 1}
    assert speed.figures([], [failed, failed | {"concurrency": 8, "failed": 0}])[0]["requests_per_s_4"] is None
    assert speed.figures([], [failed | {"failed": 0}])[0]["requests_per_s_4"] == 8


def test_speeds_are_compared_within_a_repetition():
    """Both models are slowed alike in some repetitions, as on a shared machine."""
    slow = [1.0, 3.0, 1.5, 4.0, 1.0, 2.0, 1.2, 3.3]
    own = [sample(rep, 0.1 + 1.1 * factor) for rep, factor in enumerate(slow)]
    other = [sample(rep, 0.1 + 1.0 * factor) for rep, factor in enumerate(slow)]
    found = speed.compare(own, other)
    assert found["speed_ratio"] == pytest.approx(1 / 1.1)
    assert found["speed_p"] < 0.01
    assert speed.compare(other, own)["speed_p"] > 0.9


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(TINY)


TEXT = {"documents": ["It was the best of times, it was the worst of times. " * 200], "conversations": []}
TALK = {
    "documents": [],
    "conversations": [{"messages": messages(f"What is {n} plus 1?"), "answer": str(n + 1)} for n in range(40)],
}


@pytest.mark.parametrize("text", [TEXT, TALK])
def test_prompts_have_the_tokens_that_were_asked_for_and_no_two_begin_alike(tokenizer, text):
    made = make_prompts(tokenizer, text, [32, 200], 12)
    for prompts, length in zip(made, (32, 200), strict=True):
        counts = [len(tokenizer.apply_chat_template(one, add_generation_prompt=True)) for one in prompts]
        assert np.abs(np.array(counts) - length).max() <= 2
    begins = [one[0]["content"].partition(".")[0] for prompts in made for one in prompts]
    assert len(set(begins)) == 24


def test_a_prompt_shorter_than_the_template_is_refused(tokenizer):
    with pytest.raises(StepError, match="a prompt of 2 tokens is shorter than the chat template"):
        make_prompts(tokenizer, TEXT, [2], 1)


def test_of_a_conversation_the_answer_is_predicted(tokenizer):
    windows = make_windows(tokenizer, TALK, 1000)
    assert len(windows) == 40
    for window, talk in zip(windows, TALK["conversations"], strict=True):
        assert tokenizer.decode(window["tokens"][window["first"] + 1 :]) == talk["answer"]
    assert sum(len(w["tokens"]) - w["first"] - 1 for w in make_windows(tokenizer, TEXT, 600)) >= 600
