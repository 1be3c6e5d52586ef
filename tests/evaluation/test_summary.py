"""From what was measured to figures, pairs and notable questions, by hand."""

from pathlib import Path

import numpy as np
import pytest

from steps.evaluation import summary
from steps.evaluation.inputs.question import Question
from steps.evaluation.measure.measured import Measured, Reference
from steps.evaluation.measure.model_process import Answer
from steps.evaluation.metrics import METRICS
from steps.evaluation.results import JudgedAnswer, Samples, SpeedSample, ThroughputSample

pytestmark = pytest.mark.unit

QUESTIONS = [Question([{"role": "user", "content": f"{n} + 0?"}], str(n)) for n in range(4)]
REFERENCE = Reference(["0", "1", "2", "wrong"], [], [], Path("none"), 0)


def measured(texts: list[str], decode_s: float = 3.2, scores: np.ndarray | None = None) -> Measured:
    """A model that gives these answers, and decodes 32 tokens in `decode_s` seconds, with a little scatter."""
    speed = tuple(
        SpeedSample(
            repetition=repetition,
            prompt_tokens=50,
            first_token_s=0.1,
            cached_first_token_s=0.1,
            cached_answer_s=0.1 + decode_s * (1 + repetition / 1000),
            new_tokens=33,
        )
        for repetition in range(6)
    )
    throughput = tuple(
        ThroughputSample(clients=clients, requests=8, seconds=2.0, output_tokens=9, failed=0, error=None)
        for clients in (1, 4, 8)
    )
    return Measured(
        size_bytes=2_000_000,
        ignores_eos=True,
        peak_rss_bytes=3_000_000,
        samples=Samples(load_s=1.5, first_call_s=0.25, speed=speed, throughput=throughput),
        answers=[Answer(text, 3, 2, 0.1) for text in texts],
        scores=scores,
        no_fidelity_reason="no logits" if scores is None else None,
        bytes_read_per_token=None if scores is None else 1_000_000,
    )


SCORES = np.array([[1.0, 1.5, 0.1, 1], [2.0, 1.5, 0.3, 0]])


def test_the_figures_of_a_model_that_was_not_compared_with_the_reference():
    result = summary.model_figures(measured(["0", "1", "2", "wrong"]), QUESTIONS, REFERENCE, 1e8)
    values = {name: figure.value for name, figure in result.figures.items()}
    assert (values["accuracy"], values["agreement"]) == (0.75, 1.0)
    assert (values["load_s"], values["first_call_ms"]) == (1.5, 250)
    assert (values["size_mb"], values["peak_memory_mb"]) == (2, 3)
    assert values["requests_per_s_4"] == 4
    assert values["bandwidth_share"] is None
    assert result.kl_histogram is None and "kl_mean" not in values


def test_the_figures_of_a_model_that_was_compared_with_the_reference():
    result = summary.model_figures(measured(["0", "1", "2", "3"], scores=SCORES), QUESTIONS, REFERENCE, 1e8)
    assert result.figures["kl_mean"].value == pytest.approx(0.2)
    assert result.figures["bandwidth_share"].value == pytest.approx(0.1, rel=0.01), "10 tokens/s of 1 MB, of 100 MB/s"
    assert result.kl_histogram is not None and sum(result.kl_histogram.counts) == 2
    assert set(result.figures) <= set(METRICS)


def test_the_reference_has_a_perplexity_if_any_model_was_scored():
    unscored, scored = measured(["0"] * 4), measured(["0"] * 4, scores=SCORES)
    assert summary.reference_figures(QUESTIONS, REFERENCE, [unscored])["perplexity"].value is None
    figures = summary.reference_figures(QUESTIONS, REFERENCE, [unscored, scored])
    assert figures["perplexity"].value == pytest.approx(np.exp(1.5))
    assert figures["accuracy"].value == 0.75


def test_a_failure_is_a_wrong_answer_with_its_own_reason():
    failed = measured(["0", "1", "2", "3"])
    failed.answers[1] = Answer("", None, None, 0.1, error="ValueError: no")
    assert summary.mistakes(failed, QUESTIONS) == ["", "ValueError: no", "", ""]
    assert summary.evidence(failed, QUESTIONS).right == (True, False, True, True)


def test_a_pair_has_the_difference_of_answers_and_the_ratio_of_speeds():
    models = {"new": measured(["0", "1", "2", "3"], 1.6), "old": measured(["0", "1", "no", "no"], 3.2)}
    evidence = {label: summary.evidence(model, QUESTIONS) for label, model in models.items()}
    (pair,) = summary.pairs(evidence)
    assert (pair.model, pair.against) == ("new", "old")
    assert pair.accuracy_difference == 0.5
    assert (pair.only_model_right, pair.only_against_right) == (2, 0)
    assert pair.speed_ratio == pytest.approx(2)


def test_notable_questions_are_the_worst_first_and_leave_out_what_all_got_right():
    models = {"a": measured(["0", "1", "no", "wrong"]), "b": measured(["0", "one", "no", "3"])}
    rows = summary.notable_questions(QUESTIONS, REFERENCE, models)
    assert [row.question for row in rows] == ["2 + 0?", "1 + 0?", "3 + 0?"]
    assert (rows[0].expected, rows[0].kind, rows[0].reference_answer) == ("2", "exact", "2")
    assert rows[1].answers == {
        "a": JudgedAnswer(text="1", right=True, mistake=""),
        "b": JudgedAnswer(text="one", right=False, mistake="expected '1'"),
    }
