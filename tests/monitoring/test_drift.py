"""The drift test: how often it gives a false alarm, and how soon it finds a drift. Both by simulation."""

import numpy as np
import pytest

from steps.monitoring.drift import Drift, find_drift

pytestmark = pytest.mark.unit
FALSE_ALARMS = 0.05
RUNS = 100


def lengths(random: np.random.Generator, count: int, median: float) -> list[float]:
    """Answer lengths in tokens: whole numbers with ties, and a long tail."""
    return np.round(random.lognormal(np.log(median), 0.5, count)).tolist()


def flags(random: np.random.Generator, count: int, share: float) -> list[float]:
    """One for each refused or wrong answer, else zero."""
    return (random.random(count) < share).astype(float).tolist()


def simulate(kind, before: float, after: float, at: int = 0, baseline: int = 50) -> list[Drift]:
    """Test 200 values, whose distribution changes at value `at`, in many simulated runs."""
    results = []
    for seed in range(RUNS):
        random = np.random.default_rng(seed)
        values = kind(random, at, before) + kind(random, 200 - at, after)
        results.append(find_drift(kind(random, baseline, before), values, FALSE_ALARMS, RUNS + seed))
    return results


@pytest.mark.parametrize(("kind", "level"), [(lengths, 30), (flags, 0.02), (flags, 0.5), (flags, 0)])
def test_false_alarms_are_as_rare_as_promised(kind, level):
    alarms = sum(result.alarm_at is not None for result in simulate(kind, level, level))
    assert alarms / RUNS <= FALSE_ALARMS


@pytest.mark.parametrize(
    ("kind", "before", "after", "at", "baseline"),
    [
        (lengths, 30, 60, 0, 50),
        (lengths, 60, 30, 0, 50),
        (lengths, 30, 60, 100, 50),  # in the middle
        (flags, 0.9, 0.6, 0, 200),  # right answers
        (flags, 0.02, 0.2, 0, 200),  # errors
    ],
)
def test_a_drift_is_found_within_200_values(kind, before, after, at, baseline):
    results = simulate(kind, before, after, at, baseline)
    found = [result.alarm_at for result in results if result.alarm_at is not None]
    assert len(found) >= 0.95 * RUNS
    assert np.median(found) <= at + 60


def test_a_result_tells_its_evidence():
    result = find_drift([1.0, 2.0, 3.0] * 10, [50.0] * 20, 0.05)
    assert result.values == len(result.capital) == 20
    assert result.alarm_at is not None and result.capital[result.alarm_at - 1] >= 20
    assert result.evidence == max(result.capital)
    assert find_drift([1.0], [], 0.05) == Drift(0, 1.0, None, ())


def test_the_same_seed_gives_the_same_result():
    values = [1.0, 2.0, 2.0, 1.0] * 5
    assert find_drift(values, values, 0.05, seed=3) == find_drift(values, values, 0.05, seed=3)
