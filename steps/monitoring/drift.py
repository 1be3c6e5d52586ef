"""Test one by one whether new values come from where earlier values came from.

The test is a conformal test martingale (Vovk, Nouretdinov and Gammerman, "Testing exchangeability on-line", 2003):

    value n   ─►  p = its rank among the values 1 ... n, ties broken at random       uniform in (0, 1) without a drift
    bets      ─►  capital = capital x bet(p), over several bets at once              grows when p is not uniform
    alarm     ─►  the capital has reached 1 / false_alarms                           Ville's inequality

Without a drift the p-values are independent and uniform, whatever the distribution of the values is. So the capital is
a martingale. It ever reaches 1 / false_alarms with a probability of at most `false_alarms`, however many values come.

Several tests at once get a share of `false_alarms` each. Then all together give a false alarm with a probability of at
most the sum of the shares, whether or not their values depend on each other.

After a drift, later values are compared with the new values too. So a drift is found soon, or its evidence fades. With
a baseline of 50 values, answers of twice the length are found after some 15 values. Rare events need a larger baseline.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

_POWERS = (0.3, 0.5, 0.7, 0.85)  # bets on small p-values: k * p ** (k - 1)
_SLOPES = (0.5, 1.0)  # bets on a moved mean: 1 + s * (1/2 - p)
_ODDS = (2.0, 4.0, 10.0)  # bets on a larger share of ones: a one is that many times as likely as before
# The share of the capital that moves between the bets at each value, as in the Simple Jumper (Vovk et al., "Retrain or
# not retrain: conformal test martingales for change-point detection", 2021). So a late drift is found too.
_MOVES = 0.01
_FEWEST = 8  # values before an alarm that a drift has lasted for; a few ones among zeros look like a beginning
Change = Literal["any", "up", "share"]  # what a drift is: other values, larger values, a larger share of ones


@dataclass(frozen=True)
class Drift:
    """The result of one test."""

    values: int  # that were tested
    evidence: float  # the largest capital, from 1: the larger, the less likely without a drift
    alarm_at: int | None  # the number of the value, from 1, at which the test found a drift; None if it found none
    capital: tuple[float, ...]  # after each value
    since: int | None  # the number of the value at which the drift began, as far as the values until the alarm tell


def find_drift(
    baseline: Sequence[float], values: Sequence[float], false_alarms: float, seed: int = 0, change: Change = "any"
) -> Drift:
    """Test values in the order of their time against a baseline.

    Args:
        baseline: values of the time before, in any order. With none, the test looks for a change among the values.
        false_alarms: the largest probability of an alarm without a drift: above 0, below 1.
        seed: of the random numbers that break ties.
        change: what a drift is. With "share", each value is 0 or 1.
    """
    p, ones = _ranks(baseline, values, seed)
    factors = {"any": _bets, "up": _upward_bets, "share": _share_bets}[change](p, ones)
    count = factors.shape[1]
    capital, history = np.full(count, 1 / count), []
    for factor in factors:
        capital = capital * factor
        total = float(np.add.reduce(capital))
        capital = (1 - _MOVES) * capital + _MOVES * total / count
        history.append(total)
    alarm = next((number for number, total in enumerate(history, 1) if total >= 1 / false_alarms), None)
    since = _beginning(baseline, values[:alarm], change) if alarm else None
    return Drift(len(history), max(history, default=1.0), alarm, tuple(history), since)


def _beginning(baseline: Sequence[float], values: Sequence[float], change: Change) -> int:
    """Return the number of the value, from 1, at which the values until an alarm differ most from all before it.

    The difference is the standard score of Mann and Whitney's test.
    """
    _, numbers, counts = np.unique([*baseline, *values], return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[numbers]  # equal values share the mean of their ranks
    total, later = len(ranks), np.arange(len(values), 0, -1)  # values from each number on
    sums = np.cumsum(ranks[::-1])[::-1][len(baseline) :]
    spread = np.sqrt(later * np.maximum(total - later, 0.5) * (total + 1) / 12)
    score = (sums - later * (total + 1) / 2) / spread
    score = np.abs(score) if change == "any" else score
    return int(np.argmax(score[: max(1, len(values) - _FEWEST)])) + 1


def _ranks(baseline: Sequence[float], values: Sequence[float], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the p-value of each value, and the share of ones among the values before it, both [values].

    A p-value is the share of the values above it, and of a random part of those equal to it. The share counts one more
    one than there is, which the value itself may be.
    """
    chances = np.random.default_rng(seed).random(len(values))
    earlier, p, ones = sorted(baseline), [], []
    for value, chance in zip(values, chances, strict=True):
        left, right, count = bisect_left(earlier, value), bisect_right(earlier, value), len(earlier)
        p.append((count - right + chance * (right - left + 1)) / (count + 1))
        ones.append((count - bisect_left(earlier, 1.0) + 1) / (count + 1))
        earlier.insert(right, value)
    return np.clip(np.array(p), 1e-12, 1 - 1e-12), np.array(ones)


# Each function below returns by what several bets multiply their capital, [values, bets]. A bet is a density on (0, 1)
# at the p-value. The values before it may choose the density. The first one bets on nothing.


def _bets(p: np.ndarray, ones: np.ndarray) -> np.ndarray:
    return np.column_stack([np.ones_like(p), *_side(p), *_side(1 - p)])


def _upward_bets(p: np.ndarray, ones: np.ndarray) -> np.ndarray:
    return np.column_stack([np.ones_like(p), *_side(p)])


def _side(p: np.ndarray) -> list[np.ndarray]:
    return [power * p ** (power - 1) for power in _POWERS] + [1 + slope * (0.5 - p) for slope in _SLOPES]


def _share_bets(p: np.ndarray, ones: np.ndarray) -> np.ndarray:
    """Bet that p lies below the share of the ones: the p-values of ones do."""
    bets = [np.where(p < ones, odds, 1.0) / (1 + (odds - 1) * ones) for odds in _ODDS]
    return np.column_stack([np.ones_like(p), *bets])
