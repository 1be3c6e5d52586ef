"""The drift test: the same seed gives the same result, and a result tells where a drift began."""

import numpy as np
import pytest

from steps.monitoring.drift import Change, Drift, find_drift

pytestmark = pytest.mark.unit
RUNS = 40


def lengths(random: np.random.Generator, count: int, median: float) -> list[float]:
    """Answer lengths in tokens: whole numbers with ties, and a long tail."""
    return np.round(random.lognormal(np.log(median), 0.5, count)).tolist()


def flags(random: np.random.Generator, count: int, share: float) -> list[float]:
    """One for each refused or wrong answer, else zero."""
    return (random.random(count) < share).astype(float).tolist()


@pytest.mark.parametrize(
    ("kind", "before", "after", "at", "baseline", "change"),
    [
        (lengths, 30, 60, 0, 50, "any"),
        (lengths, 60, 30, 0, 50, "any"),
        (lengths, 30, 60, 0, 50, "up"),
        (lengths, 30, 60, 100, 50, "any"),  # in the middle
        (flags, 0.02, 0.2, 0, 200, "share"),
        (flags, 0.0, 0.3, 100, 50, "share"),
    ],
)
def test_a_drift_is_found_within_200_values(kind, before, after, at, baseline, change: Change):
    results = []
    for seed in range(RUNS):
        random = np.random.default_rng(seed)
        values = kind(random, at, before) + kind(random, 200, after)
        results.append(find_drift(kind(random, baseline, before), values, 0.05, RUNS + seed, change))
    alarms = [result.alarm_at for result in results if result.alarm_at is not None]
    assert len(alarms) >= 0.95 * RUNS
    assert np.median(alarms) <= at + 60
    begins = [result.since for result in results if result.since is not None]
    assert abs(np.median(begins) - at) <= 15


@pytest.mark.parametrize(("change", "alarm"), [("any", True), ("up", False)])
def test_smaller_values_are_a_drift_only_where_any_change_is(change: Change, alarm):
    random = np.random.default_rng(0)
    result = find_drift(lengths(random, 50, 60), lengths(random, 200, 20), 0.05, change=change)
    assert (result.alarm_at is not None) == alarm
    assert (result.since is not None) == alarm


def test_a_result_tells_its_evidence():
    result = find_drift([1.0, 2.0, 3.0] * 10, [50.0] * 20, 0.05)
    assert result.values == len(result.capital) == 20
    assert result.alarm_at is not None and result.capital[result.alarm_at - 1] >= 20
    assert result.evidence == max(result.capital)
    assert find_drift([1.0], [], 0.05) == Drift(0, 1.0, None, (), None)


def test_the_same_seed_gives_the_same_result():
    values = [1.0, 2.0, 2.0, 1.0] * 5
    assert find_drift(values, values, 0.05, seed=3) == find_drift(values, values, 0.05, seed=3)


def test_without_a_baseline_a_change_among_the_values_is_found():
    random = np.random.default_rng(0)
    result = find_drift([], lengths(random, 60, 20) + lengths(random, 60, 60), 0.05)
    assert result.alarm_at is not None and 60 < result.alarm_at <= 100
    assert find_drift([], lengths(random, 120, 20), 0.05).alarm_at is None
