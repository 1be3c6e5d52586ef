"""Speed figures and comparisons from samples with known results."""

import pytest

from steps.evaluation.measure import speed
from steps.evaluation.results import SpeedSample, ThroughputSample

pytestmark = pytest.mark.unit


def sample(repetition: int, answer_s: float, new_tokens: int | None = 33) -> SpeedSample:
    return SpeedSample(
        repetition=repetition,
        prompt_tokens=50,
        first_token_s=0.1,
        cached_first_token_s=0.1,
        cached_answer_s=answer_s,
        new_tokens=new_tokens,
    )


def test_decode_is_the_tokens_after_the_first_over_the_time_after_the_first():
    figures = speed.figures([sample(0, 3.3), sample(1, 1.7), sample(2, 0.9)], [])
    assert figures["decode_tokens_per_s"].value == pytest.approx(20)
    assert figures["tpot_ms"].value == pytest.approx(50)
    assert figures["prefill_tokens_per_s"].value == pytest.approx(500)


@pytest.mark.parametrize("new_tokens", [3, None])
def test_answers_that_are_too_short_or_not_counted_give_no_decode_figure(new_tokens):
    figures = speed.figures([sample(0, 0.2, new_tokens), sample(1, 0.2, new_tokens)], [])
    assert figures["decode_tokens_per_s"].value is None
    assert figures["decode_tokens_per_s"].interval is None
    assert figures["ttft_ms"].value == pytest.approx(100)


def test_figures_are_of_the_middle_prompt_length():
    samples = [sample(repetition, 0.1 + seconds) for repetition in range(3) for seconds in (0.32, 3.2, 32)]
    assert speed.figures(samples, [])["decode_tokens_per_s"].value == pytest.approx(10)


def test_failed_requests_give_no_rate():
    good = ThroughputSample(clients=4, requests=8, seconds=1.0, output_tokens=9, failed=0, error=None)
    failed = good.model_copy(update={"failed": 1, "error": "ValueError: no"})
    eight = good.model_copy(update={"clients": 8})
    figures = speed.figures([], [failed, eight])
    assert figures["requests_per_s_4"].value is None
    assert figures["requests_per_s_8"].value == 8


def test_two_models_are_compared_within_a_repetition():
    """Some repetitions are slow for both models, as on a shared machine."""
    slowness = [1.0, 3.0, 1.5, 4.0, 1.0, 2.0, 1.2, 3.3]
    slower = [sample(repetition, 0.1 + 1.1 * factor) for repetition, factor in enumerate(slowness)]
    faster = [sample(repetition, 0.1 + 1.0 * factor) for repetition, factor in enumerate(slowness)]
    comparison = speed.compare(slower, faster)
    assert comparison.ratio == pytest.approx(1 / 1.1)
    assert comparison.p is not None and comparison.p < 0.01
    assert (reverse := speed.compare(faster, slower).p) is not None and reverse > 0.9


def test_models_that_could_not_be_timed_are_not_compared():
    assert speed.compare([], [sample(0, 1.0)]) == speed.SpeedComparison(None, None, None)
