"""Models with known answers: does the measuring measure?"""

import json

import mlflow
import pytest

from steps.errors import StepError
from steps.evaluation.evalset import Item, read_evalset
from steps.evaluation.gates import Gate, choose_champion, failures, read_gates
from steps.evaluation.measure import Measured, figures, measure

# Echoes the question, but answers "wrong" where it begins with "bad"; sleeps 20 ms, and 2 ms for each further token.
MODEL = """
import time
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

class Echo(PythonModel):
    def predict(self, context, model_input, params=None):
        answers = []
        for row in model_input.to_dict(orient="records"):
            question = row["messages"][-1]["content"]
            if question == "die":
                import os
                os.kill(os.getpid(), 9)
            tokens = int(row["max_tokens"])
            time.sleep((0.020 if question not in known else 0) + 0.002 * (tokens - 1))
            known.add(question)  # as a model that keeps the prompts that it has read
            text = "wrong" if question.startswith("bad") else question
            answers.append({"choices": [{"message": {"content": text}}], "usage": {"completion_tokens": tokens}})
        return answers

known = set()
set_model(Echo())
"""


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


def items(*questions: str) -> list[Item]:
    return [Item([{"role": "user", "content": question}], question) for question in questions]


def test_seven_wrong_of_fifty_is_an_accuracy_of_86_percent_and_sleep_is_latency(echo, tmp_path, monkeypatch):
    monkeypatch.setattr("steps.evaluation.measure.MAX_TOKENS", 1)
    asked = items(*[f"good {i}" for i in range(43)], *[f"bad {i}" for i in range(7)])
    seen = []
    measured = measure("model", echo, asked, tmp_path, lambda: seen.append(1))
    assert len(seen) == 50
    metrics = figures(measured, asked, [item.expected for item in asked[:40]] + ["else"] * 10)
    assert metrics["accuracy"] == 0.86
    assert metrics["agreement"] == 0.8
    assert metrics["ttft_ms"] >= 20  # it sleeps at least so long, and on a busy machine longer
    assert 0 < metrics["decode_tokens_per_s"] < 700  # 2 ms a token are 500 a second
    assert metrics["peak_memory_mb"] > 50


def test_memory_is_the_workers_own_and_not_its_parents(echo, tmp_path):
    """Linux lets a child inherit its parent's peak in getrusage."""
    ballast = bytearray(1 << 30)
    ballast[::4096] = b"x" * len(ballast[::4096])
    measured = measure("model", echo, items("a"), tmp_path, lambda: None)
    assert measured.peak_rss_bytes < len(ballast)


def test_a_model_that_fails_is_named_with_the_cause(echo, tmp_path):
    with pytest.raises(StepError, match="no-such-model could not be evaluated: .*"):
        measure("model", str(tmp_path / "no-such-model"), items("a"), tmp_path, lambda: None)


def test_a_model_whose_process_is_killed_is_named(echo, tmp_path):
    with pytest.raises(StepError, match="could not be evaluated: its process ended with signal 9"):
        measure("model", echo, items("die"), tmp_path, lambda: None)


def test_too_short_answers_give_no_decode_figure():
    measured = Measured(["a"], 0.1, 1, 1, [0.01, 0.01], [[0.02, 3], [0.02, 4]])
    assert figures(measured, items("a"), ["a"])["decode_tokens_per_s"] is None


def test_decode_is_the_tokens_after_the_first_over_the_time_after_the_first():
    measured = Measured(["a"], 0.1, 1, 1, [0.1, 0.1, 0.1], [[1.0, 11], [2.0, 11], [0.5, 11]])
    assert figures(measured, items("a"), ["a"])["decode_tokens_per_s"] == pytest.approx(10)


METRICS = {
    "accuracy": 0.9,
    "agreement": 0.9,
    "ttft_ms": 5.0,
    "decode_tokens_per_s": None,
    "peak_memory_mb": 1.0,
    "size_mb": 1.0,
    "load_s": 1.0,
}


@pytest.mark.parametrize(
    ("gate", "failed"),
    [
        (Gate("accuracy", "min", 0.9), []),
        (Gate("accuracy", "min", 0.91), ["accuracy 0.9 < 0.91"]),
        (Gate("ttft_ms", "max", 5.0), []),
        (Gate("ttft_ms", "max", 4.0), ["ttft_ms 5 > 4"]),
        (Gate("decode_tokens_per_s", "min", 0.0), ["decode_tokens_per_s could not be measured"]),
        (Gate("accuracy", "min", float("nan")), ["accuracy 0.9 < nan"]),
    ],
)
def test_gates(gate, failed):
    assert failures([gate], METRICS) == failed


def test_the_champion_is_the_fastest_decoder():
    slow, fast = METRICS | {"decode_tokens_per_s": 10.0}, METRICS | {"decode_tokens_per_s": 20.0}
    assert choose_champion({"a": slow, "b": fast, "c": METRICS}) == "b"
    assert choose_champion({}) is None


def test_models_that_answer_too_briefly_to_be_timed_come_last_by_their_first_token():
    timed, late = METRICS | {"decode_tokens_per_s": 10.0}, METRICS | {"ttft_ms": 9.0}
    assert choose_champion({"late": late, "early": METRICS}) == "early"
    assert choose_champion({"early": METRICS, "timed": timed}) == "timed"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected at least one"),
        ("- a", "expected at least one"),
        ("a: [", "is not YAML"),
        ("acuracy: {min: 1}", "did you mean 'accuracy'"),
        ("accuracy: 1", "expected {min"),
        ("accuracy: {least: 1}", "expected min or max"),
        ("accuracy: {min: high}", "expected min or max and a number"),
    ],
)
def test_bad_gates_are_refused(tmp_path, text, message):
    (tmp_path / "gates.yaml").write_text(text)
    with pytest.raises(StepError, match=message):
        read_gates(tmp_path / "gates.yaml")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not JSON"),
        ("[]", "line 2: no valid messages"),
        (json.dumps({"messages": [], "expected": "a"}), "line 2: no valid messages"),
        (json.dumps({"messages": [{"role": "user"}], "expected": "a"}), "line 2: no valid messages"),
        (json.dumps({"messages": [{"role": "user", "content": "a"}]}), "line 2: no expected answer"),
    ],
)
def test_a_bad_line_of_an_evaluation_set_is_named_by_its_number(tmp_path, line, message):
    good = json.dumps({"messages": [{"role": "user", "content": "a"}], "expected": "b"})
    (tmp_path / "set.jsonl").write_text(f"{good}\n{line}\n")
    with pytest.raises(StepError, match=message):
        read_evalset(tmp_path / "set.jsonl")


def test_an_empty_or_missing_evaluation_set_is_refused(tmp_path):
    (tmp_path / "set.jsonl").write_text("\n\n")
    with pytest.raises(StepError, match="is empty"):
        read_evalset(tmp_path / "set.jsonl")
    with pytest.raises(StepError, match="No such file"):
        read_evalset(tmp_path / "none.jsonl")
