"""Gates: how they are read, and what passes them."""

import pytest

from steps.common.errors import StepError
from steps.evaluation.method import GateLimit
from steps.evaluation.results import Figure, GateResult
from steps.evaluation.verdict.gates import judge, read_gates

pytestmark = pytest.mark.unit


def figures(**values: float | None) -> dict[str, Figure]:
    return {name: Figure(value=value) for name, value in values.items()}


MODEL = figures(accuracy=0.9, ttft_ms=5.0, decode_tokens_per_s=None, size_mb=1.0, kl_mean=float("nan"))
REFERENCE = figures(accuracy=0.92, perplexity=8.0)
CHAMPION = figures(accuracy=0.9, ttft_ms=4.0, decode_tokens_per_s=10.0)


def gate(metric, bound, limit, against="", how="value") -> GateLimit:
    return GateLimit(metric=metric, bound=bound, limit=limit, against=against, how=how)


@pytest.mark.parametrize(
    ("limit", "passed", "text"),
    [
        (gate("accuracy", "min", 0.9), True, "accuracy 0.9 >= 0.9"),
        (gate("accuracy", "min", 0.91), False, "accuracy 0.9 < 0.91"),
        (gate("ttft_ms", "max", 5.0), True, "ttft_ms 5 <= 5"),
        (gate("ttft_ms", "max", 4.0), False, "ttft_ms 5 > 4"),
        (gate("decode_tokens_per_s", "min", 0.0), False, "decode_tokens_per_s could not be measured"),
        (gate("kl_mean", "max", 1.0), False, "kl_mean could not be measured"),
        (gate("same_top", "min", 0.0), False, "same_top could not be measured"),
        (gate("accuracy", "min", -0.02, "reference", "difference"), True, "accuracy - reference's -0.02 >= -0.02"),
        (gate("accuracy", "min", -0.01, "reference", "difference"), False, "accuracy - reference's -0.02 < -0.01"),
        (gate("ttft_ms", "max", 1.25, "champion", "ratio"), True, "ttft_ms / champion's 1.25 <= 1.25"),
        (gate("ttft_ms", "max", 1.2, "champion", "ratio"), False, "ttft_ms / champion's 1.25 > 1.2"),
        (gate("decode_tokens_per_s", "min", 0.9, "champion", "ratio"), False, "could not be measured"),
        (gate("size_mb", "max", 1.0, "champion", "ratio"), False, "size_mb of the champion could not be measured"),
    ],
)
def test_gates(limit, passed, text):
    result = judge(limit, MODEL, REFERENCE, CHAMPION)
    assert result.passed is passed
    assert text in result.text


def test_without_a_champion_every_model_passes_a_gate_against_it():
    result = judge(gate("ttft_ms", "max", 0.1, "champion", "ratio"), MODEL, REFERENCE, None)
    assert result == GateResult(text="ttft_ms against the champion: there is none yet", passed=True)


def test_a_gate_against_a_champion_that_could_not_be_measured_fails():
    result = judge(gate("ttft_ms", "max", 9.0, "champion", "ratio"), MODEL, REFERENCE, {})
    assert result == GateResult(text="ttft_ms of the champion could not be measured", passed=False)


def test_every_form_is_read(tmp_path):
    (tmp_path / "gates.yaml").write_text(
        "accuracy: {min: 0.8, max: 1, reference: {min_difference: -0.02}}\n"
        "decode_tokens_per_s: {champion: {min_ratio: 0.95, max_ratio: 9}}\n"
    )
    assert read_gates(tmp_path / "gates.yaml") == (
        gate("accuracy", "min", 0.8),
        gate("accuracy", "max", 1.0),
        gate("accuracy", "min", -0.02, "reference", "difference"),
        gate("decode_tokens_per_s", "min", 0.95, "champion", "ratio"),
        gate("decode_tokens_per_s", "max", 9.0, "champion", "ratio"),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected at least one"),
        ("- a", "expected at least one"),
        ("a: [", "is not YAML"),
        ("acuracy: {min: 1}", "did you mean 'accuracy'"),
        ("accuracy: 1", "expected limits, such as {min"),
        ("accuracy: {least: 1}", "expected min or max"),
        ("accuracy: {min: high}", "expected min or max and a number"),
        ("accuracy: {min: true}", "expected min or max and a number"),
        ("accuracy: {min: .nan}", "expected min or max and a number"),
        (
            "ttft_ms: {reference: {max_ratio: 1}}",
            "the reference does not have this metric; expected one of accuracy, p",
        ),
        ("accuracy: {champion: {least: 1}}", "expected one of min_difference"),
        ("accuracy: {champion: 1}", "expected limits, such as"),
    ],
)
def test_bad_gates_are_refused(tmp_path, text, message):
    (tmp_path / "gates.yaml").write_text(text)
    with pytest.raises(StepError, match=message):
        read_gates(tmp_path / "gates.yaml")
