"""How sure a figure is: standard errors, 95% intervals, and tests of whether two models differ."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

_RESAMPLES = 10_000
_LEVEL = 0.95
_CELLS = 4_000_000  # values that are resampled at a time: 32 MB
SIGNIFICANT = 0.05  # a p-value below it counts as a difference

Interval = tuple[float, float]
Values = Sequence[float] | np.ndarray


@dataclass(frozen=True)
class McNemar:
    """The result of McNemar's test of two models that answered the same questions."""

    only_model_right: int  # questions
    only_against_right: int  # questions
    p: float  # two-sided
    p_worse: float  # one-sided: the probability of at least this many losses if the model is no worse


def standard_error(values: np.ndarray) -> float:
    """Return the standard error of the mean of independent values, s / sqrt(n); NaN for fewer than two values."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def bootstrap(
    values: Values, statistic: Callable[..., np.ndarray] = np.mean, resamples: int = _RESAMPLES
) -> np.ndarray:
    """Return a statistic of each of `resamples` samples that are drawn with replacement.

    The samples are the same at every call, so that a figure is the same too.
    Efron, B. (1979), "Bootstrap methods: another look at the jackknife", Annals of Statistics 7(1).

    Args:
        statistic: takes an array [samples, values] and `axis=1`, and returns one value a sample.
    """
    array, generator = np.asarray(values, float), np.random.default_rng(0)
    rows = max(1, min(resamples, _CELLS // max(1, len(array))))
    parts = []
    for start in range(0, resamples, rows):
        indices = generator.integers(0, len(array), (min(rows, resamples - start), len(array)))
        parts.append(statistic(array[indices], axis=1))
    return np.concatenate(parts)


def interval(values: Values, statistic: Callable[..., np.ndarray] = np.mean) -> Interval | None:
    """Return the 95% percentile interval of a statistic by bootstrap; None for fewer than two values."""
    if len(values) < 2:
        return None
    edge = (1 - _LEVEL) / 2
    low, high = np.quantile(bootstrap(values, statistic), [edge, 1 - edge])
    return float(low), float(high)


def share_interval(right: int, count: int) -> Interval | None:
    """Return Wilson's 95% interval of a share; None for a count of 0.

    It also holds for a share of 0 or 1, where a bootstrap has no width.
    Wilson, E. B. (1927), "Probable inference, the law of succession, and statistical inference", JASA 22.
    """
    if not count:
        return None
    from scipy.stats import binomtest  # here, since scipy takes a second to import

    ends = binomtest(right, count).proportion_ci(_LEVEL, method="wilson")
    return float(ends.low), float(ends.high)


def mcnemar(model: Sequence[bool], against: Sequence[bool]) -> McNemar:
    """Compare two models by the questions that only one of them answered right: McNemar's exact test.

    It takes the binomial distribution, since the counts may be small.
    McNemar, Q. (1947), "Note on the sampling error of the difference between correlated proportions or percentages",
    Psychometrika 12(2).

    Args:
        model, against: whether each model answered each question right.
    """
    from scipy.stats import binomtest  # here, since scipy takes a second to import

    won = sum(a and not b for a, b in zip(model, against, strict=True))
    lost = sum(b and not a for a, b in zip(model, against, strict=True))
    count = won + lost
    if not count:
        return McNemar(0, 0, p=1.0, p_worse=1.0)
    p_worse = binomtest(lost, count, alternative="greater").pvalue
    return McNemar(int(won), int(lost), p=float(binomtest(lost, count).pvalue), p_worse=float(p_worse))


def paired_worse(losses: Values) -> float:
    """Return the one-sided p-value of paired differences by Wilcoxon's signed-rank test.

    It is the probability of losses at least as large as these if the model is no worse. It is exact for up to 50 pairs
    without ties.
    Wilcoxon, F. (1945), "Individual comparisons by ranking methods", Biometrics Bulletin 1(6).

    Args:
        losses: a value for each pair, above 0 where the model did worse than the other model.
    """
    from scipy.stats import wilcoxon  # here, since scipy takes a second to import

    if not np.any(losses):
        return 1.0
    return float(wilcoxon(losses, alternative="greater").pvalue)


def mean_worse(losses: np.ndarray) -> float:
    """Return the one-sided p-value of paired differences whose mean has a normal distribution: many tokens.

    Args:
        losses: a value for each pair, above 0 where the model did worse than the other model.
    """
    from scipy.stats import norm  # here, since scipy takes a second to import

    error = standard_error(losses)
    if not np.isfinite(error) or error == 0:
        return 1.0 if losses.mean() <= 0 else 0.0
    return float(norm.sf(losses.mean() / error))
