"""Test one by one whether new values come from where earlier values came from.

The test is a conformal test martingale (Vovk, Nouretdinov and Gammerman, "Testing exchangeability on-line", 2003):

    value n   ─►  p = its rank among the values 1 ... n, ties broken at random       uniform in (0, 1) without a drift
    bets      ─►  capital = capital x bet(p), over several bets at once              grows when p is not uniform
    alarm     ─►  the capital has reached 1 / false_alarms                           Ville's inequality

Without a drift the p-values are independent and uniform, whatever the distribution of the values is. So the capital is
a martingale. It ever reaches 1 / false_alarms with a probability of at most `false_alarms`, however many values come.

After a drift, later values are compared with the new values too. So a drift is found soon, or its evidence fades. With
a baseline of 50 values, answers of twice the length are found after some 15 values. Rare events need a larger baseline.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_POWERS = (0.3, 0.5, 0.7, 0.85)  # bets on small p-values: k * p ** (k - 1)
_SLOPES = (0.5, 1.0)  # bets on a moved mean: 1 + s * (1/2 - p)
# The share of the capital that moves between the bets at each value, as in the Simple Jumper (Vovk et al., "Retrain or
# not retrain: conformal test martingales for change-point detection", 2021). So a late drift is found too.
_MOVES = 0.01


@dataclass(frozen=True)
class Drift:
    """The result of one test."""

    values: int  # that were tested
    evidence: float  # the largest capital, from 1: the larger, the less likely without a drift
    alarm_at: int | None  # the number of the value, from 1, at which the test found a drift; None if it found none
    capital: tuple[float, ...]  # after each value


def find_drift(baseline: Sequence[float], values: Sequence[float], false_alarms: float, seed: int = 0) -> Drift:
    """Test values in the order of their time against a baseline, in both directions.

    Args:
        baseline: values of the time before, in any order. With none, the test looks for a change among the values.
        false_alarms: the largest probability of an alarm without a drift: above 0, below 1.
        seed: of the random numbers that break ties.
    """
    random = np.random.default_rng(seed)
    earlier, capital, history = sorted(baseline), _even(1.0), []
    for value in values:
        capital *= _bets(_rank(earlier, value, random.random()))
        capital = (1 - _MOVES) * capital + _MOVES * _even(float(capital.sum()))
        history.append(float(capital.sum()))
        insort(earlier, value)
    alarm = next((number for number, total in enumerate(history, 1) if total >= 1 / false_alarms), None)
    return Drift(len(history), max(history, default=1.0), alarm, tuple(history))


def _rank(earlier: list[float], value: float, chance: float) -> float:
    """Return the p-value of a value: the share of the values above it, and of a random part of those equal to it."""
    above, equal = (
        len(earlier) - bisect_right(earlier, value),
        bisect_right(earlier, value) - bisect_left(earlier, value),
    )
    p = (above + chance * (equal + 1)) / (len(earlier) + 1)
    return min(max(p, 1e-12), 1 - 1e-12)


def _bets(p: float) -> np.ndarray:
    """Return by what each bet multiplies its capital: a density on (0, 1) at p. The first one bets on nothing."""
    sides = (p, 1 - p)
    powers = [power * side ** (power - 1) for power in _POWERS for side in sides]
    slopes = [1 + slope * (0.5 - side) for slope in _SLOPES for side in sides]
    return np.array([1.0, *powers, *slopes])


def _even(total: float) -> np.ndarray:
    count = 1 + 2 * (len(_POWERS) + len(_SLOPES))
    return np.full(count, total / count)
