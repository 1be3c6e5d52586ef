"""Models with known answers and known latencies, in real processes: what is measured of them, and how they fail."""

from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest

from steps.common.errors import StepError
from steps.evaluation import summary
from steps.evaluation.inputs.effort import Effort
from steps.evaluation.inputs.question import Question
from steps.evaluation.measure import speed
from steps.evaluation.measure.measured import Measurements, Reference
from steps.evaluation.measure.measuring import Models, measure_models
from steps.evaluation.measure.model_process import ModelProcess
from steps.evaluation.results import JudgedAnswer

pytestmark = pytest.mark.model

# Answers with the question, but with "wrong" if it begins with "bad". Sleeps 20 ms for a question that it has not seen,
# as a model with a prompt cache, and 2 ms for each further token.
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
            time.sleep((0.020 if question not in seen else 0) + 0.002 * (tokens - 1))
            seen.add(question)
            text = "wrong" if question.startswith("bad") else question
            usage = {"prompt_tokens": "many" if question == "odd" else 10, "completion_tokens": tokens}
            answers.append({"choices": [{"message": {"content": text}}], "usage": usage})
        return answers

seen = set()
set_model(Echo())
"""
EFFORT = Effort(50, 100, (10, 20), 9, 6, 60.0, clients=(1, 4), requests=4)


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


def reference_of(questions: list[Question], scratch: Path) -> Reference:
    """A reference without a text, and with prompts of two lengths as make_prompts makes them."""
    count = speed.prompts_needed(EFFORT)
    prompts = [[messages(f"{length} {number}") for number in range(count)] for length in (10, 20)]
    return Reference([question.expected for question in questions], [], prompts, scratch / "none", 0)


def measure(models: Models, questions: list[Question], progress=lambda: None) -> Measurements:
    return measure_models(
        models,
        reference_of(questions, models.scratch),
        EFFORT,
        lambda label, answer: [answer(question.messages) for question in questions],
        progress,
    )


@dataclass(frozen=True)
class Evaluated:
    """What was asked, and what was measured."""

    questions: list[Question]
    reference: Reference
    measurements: Measurements
    progress_calls: int


@pytest.fixture(scope="module")
def evaluated(echo, tmp_path_factory) -> Evaluated:
    """Two of the same model and an optional one that is missing; of 50 questions, the model gets 7 wrong."""
    texts = [*[f"good {i}" for i in range(43)], *[f"bad {i}" for i in range(7)]]
    questions = [Question(messages(text), text) for text in texts]
    scratch, calls = tmp_path_factory.mktemp("measured"), []
    with Models({"one": echo, "two": echo, "gone": str(scratch / "gone")}, ["gone"], scratch) as models:
        measurements = measure(models, questions, lambda: calls.append(1))
    return Evaluated(questions, reference_of(questions, scratch), measurements, len(calls))


def test_models_that_fit_into_memory_are_timed_in_turn(evaluated):
    assert evaluated.measurements.interleaved
    assert list(evaluated.measurements.measured) == ["one", "two"]
    assert evaluated.progress_calls == speed.progress_calls(EFFORT, 2)


def test_an_optional_model_that_is_missing_is_left_out_with_its_reason(evaluated):
    reason = evaluated.measurements.failures["gone"]
    assert "could not be evaluated" in reason and ("No such" in reason or "not" in reason)


def test_seven_wrong_of_fifty_is_an_accuracy_of_86_percent(evaluated):
    measured = evaluated.measurements.measured
    result = summary.model_figures(measured["one"], evaluated.questions, evaluated.reference, 1e9)
    assert result.figures["accuracy"].value == 0.86
    assert result.figures["agreement"].value == 0.86
    assert result.figures["accuracy"].interval == pytest.approx((0.738, 0.931), abs=1e-3)
    assert "kl_mean" not in result.figures and result.kl_histogram is None
    notable = summary.notable_questions(evaluated.questions, evaluated.reference, measured)
    assert [row.question for row in notable] == [f"bad {i}" for i in range(7)]
    assert notable[0].answers["one"] == JudgedAnswer(text="wrong", right=False, mistake="expected 'bad 0'")


def test_a_model_that_sleeps_has_the_latency_that_it_sleeps(evaluated):
    """At least that latency; on a busy machine more."""
    for measured in evaluated.measurements.measured.values():
        samples = measured.samples
        figures = speed.figures(samples.speed, samples.throughput)
        value = {name: figure.value for name, figure in figures.items()}
        assert 20 <= value["ttft_ms"] <= value["ttft_p95_ms"]
        assert min(sample.cached_answer_s for sample in samples.speed) >= 8 * 0.002
        assert 1 < value["tpot_ms"] <= value["tpot_p95_ms"], "a difference of two times, each of which scatters"
        assert value["prefill_tokens_per_s"] <= 10 / 0.020
        assert figures["ttft_ms"].interval[0] >= 20
        # A request of 9 tokens sleeps 36 ms: one client gets fewer than 28 a second, and four no more than 4 x 28.
        assert value["requests_per_s_1"] <= 28
        assert value["requests_per_s_1"] < value["requests_per_s_4"] <= 112
        assert {sample.new_tokens for sample in samples.speed} == {9}
        assert len(samples.speed) == EFFORT.repetitions * 2
        assert measured.peak_rss_bytes > 50e6
        assert samples.load_s > 0
        assert samples.first_call_s >= 0.02


def test_two_runs_of_the_same_model_are_not_different(evaluated):
    measured = evaluated.measurements.measured
    evidence = {label: summary.evidence(model, evaluated.questions) for label, model in measured.items()}
    (pair,) = summary.pairs(evidence)
    assert (pair.accuracy_difference, pair.mcnemar_p) == (0, 1)
    assert pair.accuracy_interval == (0, 0)
    low, high = pair.speed_interval
    assert low <= pair.speed_ratio <= high


def test_memory_is_of_the_worker_alone_and_not_of_its_parent(echo, tmp_path):
    """Linux lets a child inherit its parent's peak in getrusage."""
    ballast = bytearray(1 << 30)
    ballast[::4096] = b"x" * len(ballast[::4096])
    with ModelProcess("a model", tmp_path) as process:
        process.fetch(echo)
        process.load(ignore_eos=False)
        assert process.peak_memory() < len(ballast)


def measure_one(uri: str, scratch: Path, *texts: str) -> Measurements:
    with Models({"one": uri}, [], scratch) as models:
        return measure(models, [Question(messages(text), text) for text in texts])


def test_a_model_that_is_missing_is_named_with_the_cause(tmp_path):
    with pytest.raises(StepError, match="no-such-model could not be evaluated: .*"):
        measure_one(str(tmp_path / "no-such-model"), tmp_path, "a")


def test_a_model_whose_process_is_killed_is_named(echo, tmp_path):
    with pytest.raises(StepError, match="could not be evaluated: its process ended with signal 9"):
        measure_one(echo, tmp_path, "die")


def test_a_model_that_counts_tokens_in_words_is_refused_with_the_field(echo, tmp_path):
    with pytest.raises(StepError, match="could not be evaluated: its prompt_tokens is 'many': .*valid integer"):
        measure_one(echo, tmp_path, "odd")


def test_failing_at_one_question_is_a_wrong_answer_and_at_all_of_them_an_error(echo, tmp_path):
    measured = measure_one(echo, tmp_path, "a", "fail").measured["one"]
    questions = [Question(messages(text), text) for text in ("a", "fail")]
    assert summary.mistakes(measured, questions) == ["", "ValueError: as it was told"]
    with pytest.raises(StepError, match="it fails at every question: ValueError: as it was told"):
        measure_one(echo, tmp_path, "fail 1", "fail 2")
