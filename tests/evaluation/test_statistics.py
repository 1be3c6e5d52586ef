"""Statistics: known results, and how often two equal models are called different."""

import numpy as np
import pytest
from scipy import stats

from steps.evaluation.statistics import (
    SIGNIFICANT,
    McNemar,
    interval,
    mcnemar,
    mean_worse,
    paired_worse,
    share_interval,
    standard_error,
)

pytestmark = pytest.mark.unit


def test_the_standard_error_of_a_mean():
    assert standard_error(np.array([1.0, 2.0, 3.0, 4.0])) == pytest.approx(np.sqrt(5 / 3) / 2)
    assert np.isnan(standard_error(np.array([1.0])))


def test_the_bootstrap_interval_is_the_normal_interval_for_many_values():
    values = np.random.default_rng(1).normal(3, 2, 2000)
    ends = interval(values)
    error = standard_error(values)
    assert ends == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.1 * error)
    assert interval(values) == ends, "the same samples give the same interval"
    assert interval([1.0]) is None


def test_the_interval_of_a_share_is_wilsons():
    """The expected ends are those of published calculators."""
    assert share_interval(43, 50) == pytest.approx((0.7381, 0.9305), abs=1e-3)
    assert share_interval(50, 50) == pytest.approx((0.9287, 1.0), abs=1e-3)
    assert share_interval(0, 0) is None


def test_mcnemar_counts_the_questions_that_only_one_model_gets_right():
    model = [True] * 80 + [True] * 2 + [False] * 12 + [False] * 6
    other = [True] * 80 + [False] * 2 + [True] * 12 + [False] * 6
    result = mcnemar(model, other)
    assert (result.only_model_right, result.only_against_right) == (2, 12)
    assert result.p == pytest.approx(2 * stats.binom.cdf(2, 14, 0.5))
    assert result.p_worse == pytest.approx(stats.binom.cdf(2, 14, 0.5))
    assert mcnemar(other, model).p_worse == pytest.approx(1 - stats.binom.cdf(1, 14, 0.5))
    assert mcnemar(model, model) == McNemar(0, 0, p=1.0, p_worse=1.0)


def test_two_runs_of_the_same_model_are_seldom_called_different():
    """At most as often as the level says, within what 1,000 trials can tell (three standard deviations)."""
    generator = np.random.default_rng(0)
    trials, tolerance = 1000, 3 * np.sqrt(SIGNIFICANT * (1 - SIGNIFICANT) / 1000)
    answers, speeds, likelihoods = 0, 0, 0
    for _ in range(trials):
        difficulty = generator.random(100)
        one, two = generator.random((2, 100)) < difficulty
        answers += mcnemar(one.tolist(), two.tolist()).p < SIGNIFICANT
        speeds += paired_worse(generator.standard_t(3, 10) * 0.1) < SIGNIFICANT
        likelihoods += mean_worse(generator.normal(0, 1, 500)) < SIGNIFICANT
    for count in (answers, speeds, likelihoods):
        assert count / trials <= SIGNIFICANT + tolerance


def test_a_real_loss_is_detected():
    generator = np.random.default_rng(0)
    assert paired_worse(0.05 + 0.02 * generator.standard_normal(10)) < 0.01
    assert paired_worse(-0.05 + 0.02 * generator.standard_normal(10)) > 0.9
    assert mean_worse(generator.normal(0.2, 1, 500)) < 0.01
    assert paired_worse([0.0] * 10) == 1.0
    assert mean_worse(np.zeros(10)) == 1.0
