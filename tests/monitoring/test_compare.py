"""The statement on false alarms and on power, by simulation; the verdicts in words."""

import numpy as np
import pytest

from steps.monitoring.compare import FALSE_ALARMS, BaselineValues, compare, expected_first_token, level_of
from steps.monitoring.quantities import QUANTITIES
from steps.monitoring.results import Comparison
from tests.monitoring.samples import baseline, observations, served

pytestmark = pytest.mark.unit
RUNS = 100
REQUESTS = 200
TESTED = [name for name, quantity in QUANTITIES.items() if not quantity.optional]


def drifted(comparisons: tuple[Comparison, ...]) -> set[str]:
    return {comparison.name for comparison in comparisons if comparison.verdict == "drift"}


def test_without_a_drift_all_quantities_together_give_an_alarm_in_at_most_5_percent_of_the_runs():
    """At most so many that the 95% upper limit of the true rate is still below 5%: 1 of 100."""
    from scipy.stats import beta

    alarms = 0
    for seed in range(RUNS):
        random = np.random.default_rng(seed)
        alarms += bool(drifted(compare(observations(random, REQUESTS), baseline(random), judged=False)))
    upper = beta.ppf(0.95, alarms + 1, RUNS - alarms)
    assert upper <= FALSE_ALARMS, f"{alarms} of {RUNS} runs"


@pytest.mark.parametrize(
    ("quantity", "by"),
    [
        ("prompt_tokens", 2.0),
        ("answer_tokens", 0.5),
        ("ttft_ms", 1.5),
        ("tpot_ms", 1.5),
        ("refused", 0.3),
        ("failed", 0.3),
        ("declined", 0.3),
        ("cut", 0.6),
        ("flawed", 0.3),
    ],
)
def test_a_planted_shift_is_found_within_200_requests(quantity, by):
    found = 0
    for seed in range(12):
        random = np.random.default_rng(1000 + seed)
        comparisons = compare(observations(random, REQUESTS, quantity, by), baseline(random), judged=False)
        assert drifted(comparisons) <= {quantity}
        found += bool(drifted(comparisons))
    assert found >= 11


def one(name: str, comparisons: tuple[Comparison, ...]) -> Comparison:
    return next(comparison for comparison in comparisons if comparison.name == name)


def test_each_quantity_gets_an_equal_share_of_the_false_alarms():
    random = np.random.default_rng(0)
    plain = compare(observations(random, 30), baseline(random), judged=False)
    judged = compare(observations(random, 30), baseline(random), judged=True)
    assert [comparison.name for comparison in plain] == TESTED
    assert [comparison.name for comparison in judged] == list(QUANTITIES)
    for comparisons in (plain, judged):
        assert sum(1 / comparison.alarm_line for comparison in comparisons) == pytest.approx(FALSE_ALARMS)


def test_a_drift_tells_since_when_and_the_levels():
    random = np.random.default_rng(0)
    requests = [*observations(random, 80), *observations(random, 80, "failed", 0.5)]
    requests = [type(o)(served(number), o.values, "") for number, o in enumerate(requests)]
    comparison = one("failed", compare(requests, baseline(random), judged=False))
    assert comparison.verdict == "drift"
    assert comparison.since is not None and comparison.alarm_at is not None
    assert 75 <= comparison.since <= 95 and comparison.alarm_at <= 110
    assert comparison.sentence.startswith(f"drift since request {comparison.since} of 160 (2026-09-21 ")
    assert "0.0% in the evaluation; found at request" in comparison.sentence
    level = level_of(comparison)
    assert level is not None and level > 0.4, "since the drift, not before"


def test_few_values_are_no_verdict():
    random = np.random.default_rng(0)
    comparisons = compare(observations(random, 7), baseline(random), judged=False)
    assert {comparison.verdict for comparison in comparisons} == {"too few values"}
    assert "too few values, 20 are needed: 7 requests: median" in one("prompt_tokens", comparisons).sentence


def test_a_quantity_without_values_says_so():
    requests = [type(o)(o.served, {"failed": 0.0}, "") for o in observations(np.random.default_rng(0), 30)]
    comparison = one("ttft_ms", compare(requests, BaselineValues(), judged=False))
    assert (comparison.verdict, comparison.sentence) == ("too few values", "too few values: no request has one")
    assert level_of(comparison) is None


def test_without_a_baseline_the_requests_are_compared_with_each_other():
    random = np.random.default_rng(0)
    same = one("answer_tokens", compare(observations(random, 60), BaselineValues(), judged=False))
    assert same.sentence.endswith("no baseline, so the requests were compared with each other")
    requests = [*observations(random, 60), *observations(random, 60, "answer_tokens", 4.0)]
    moved = one("answer_tokens", compare(requests, BaselineValues(), judged=False))
    assert moved.verdict == "drift"
    assert " before; found at request" in moved.sentence


def test_a_long_prompt_is_no_drift_of_the_time_to_its_first_token():
    expected = expected_first_token([(32, 8.0), (33, 8.2), (128, 18.0), (384, 43.0), (382, 43.6)])
    assert expected is not None
    assert expected(10) == pytest.approx(8.1)
    assert expected(80) == pytest.approx(13.05, abs=0.2)
    assert expected(1384) == pytest.approx(144, abs=5), "it rises as before"
    assert expected_first_token([]) is None
    random = np.random.default_rng(0)
    longer = observations(random, 200, "prompt_tokens", 6.0)
    for observation in longer:
        observation.values["ttft_ms"] *= (5 + 0.1 * observation.values["prompt_tokens"]) / (
            5 + 0.1 * observation.values["prompt_tokens"] / 6
        )
    assert drifted(compare(longer, baseline(random), judged=False)) == {"prompt_tokens"}
