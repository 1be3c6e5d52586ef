"""How sure a figure is: standard errors, bootstrap intervals, and tests of whether two models differ."""

from collections.abc import Callable, Sequence

import numpy as np

_RESAMPLES = 10_000
_LEVEL = 0.95
SIGNIFICANT = 0.05  # a p-value below it is taken for a difference

Interval = tuple[float, float]


def standard_error(values: np.ndarray) -> float:
    """Of the mean of independent values: s / sqrt(n); NaN for fewer than two."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def bootstrap(
    values: Sequence[float], statistic: Callable[..., np.ndarray] = np.mean, resamples: int = _RESAMPLES
) -> np.ndarray:
    """The statistic of `resamples` samples drawn with replacement, the same ones each time it is called.

    Efron, B. (1979), "Bootstrap methods: another look at the jackknife", Annals of Statistics 7(1).

    Args:
        statistic: takes an array [samples, values] and `axis=1`.
    """
    array, generator = np.asarray(values, float), np.random.default_rng(0)
    rows = max(1, min(resamples, 4_000_000 // max(1, len(array))))  # 32 MB at a time
    found = [
        statistic(array[generator.integers(0, len(array), (min(rows, resamples - start), len(array)))], axis=1)
        for start in range(0, resamples, rows)
    ]
    return np.concatenate(found)


def interval(values: Sequence[float], statistic: Callable[..., np.ndarray] = np.mean) -> Interval | None:
    """The bootstrap's 95% percentile interval of a statistic; None for fewer than two values."""
    if len(values) < 2:
        return None
    edge = (1 - _LEVEL) / 2
    low, high = np.quantile(bootstrap(values, statistic), [edge, 1 - edge])
    return float(low), float(high)


def share_interval(right: int, count: int) -> Interval | None:
    """Wilson's 95% interval of a share, which also holds where all or none are right and a bootstrap has no width.

    Wilson, E. B. (1927), "Probable inference, the law of succession, and statistical inference", JASA 22.
    """
    if not count:
        return None
    from scipy.stats import binomtest

    found = binomtest(right, count).proportion_ci(_LEVEL, method="wilson")
    return float(found.low), float(found.high)


def mcnemar(model: Sequence[bool], other: Sequence[bool]) -> dict[str, float | int]:
    """McNemar's exact test of paired answers: the questions that only one of two models gets right.

    McNemar, Q. (1947), Psychometrika 12(2); exact, by the binomial distribution, as the counts may be small.

    Returns:
        `only_model_right`, `only_against_right`; `mcnemar_p`, two-sided; `p_worse`, one-sided: how likely so many
        losses, or more, are if the model is no worse.
    """
    from scipy.stats import binomtest

    won = sum(a and not b for a, b in zip(model, other, strict=True))
    lost = sum(b and not a for a, b in zip(model, other, strict=True))
    differing = won + lost
    return {
        "only_model_right": won,
        "only_against_right": lost,
        "mcnemar_p": float(binomtest(lost, differing).pvalue) if differing else 1.0,
        "p_worse": float(binomtest(lost, differing, alternative="greater").pvalue) if differing else 1.0,
    }


def paired_worse(losses: Sequence[float]) -> float:
    """Wilcoxon's signed-rank test, one-sided: how likely paired differences like these are if there is no loss.

    Wilcoxon, F. (1945), Biometrics Bulletin 1(6). Exact for up to 50 pairs without ties.

    Args:
        losses: above 0 where the model did worse than the other in the same repetition.
    """
    from scipy.stats import wilcoxon

    if not np.any(losses):
        return 1.0
    return float(wilcoxon(losses, alternative="greater").pvalue)


def mean_worse(losses: np.ndarray) -> float:
    """One-sided p-value of paired differences whose mean is normal: many tokens."""
    from scipy.stats import norm

    error = standard_error(losses)
    if not np.isfinite(error) or error == 0:
        return 1.0 if losses.mean() <= 0 else 0.0
    return float(norm.sf(losses.mean() / error))
