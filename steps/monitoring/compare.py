"""Compare the requests of a period with a baseline, quantity by quantity.

The probability that any comparison gives a false alarm is at most FALSE_ALARMS. Each comparison gets an equal share.
"""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from steps.monitoring.drift import Drift, find_drift
from steps.monitoring.quantities import QUANTITIES, Quantity
from steps.monitoring.results import Comparison, Verdict
from steps.monitoring.served import Observation
from steps.monitoring.wording import LEAST, sentence

FALSE_ALARMS = 0.05  # of all comparisons of one monitoring together
Speeds = Sequence[tuple[float, float]]  # prompt tokens, time to first token in ms


@dataclass(frozen=True)
class BaselineValues:
    """Values of the time before."""

    values: Mapping[str, Sequence[float]] = field(default_factory=dict)  # by quantity
    first_tokens: Speeds = ()


def compare(observations: Sequence[Observation], baseline: BaselineValues, judged: bool) -> tuple[Comparison, ...]:
    """Return a comparison for each quantity.

    Args:
        observations: in the order of their time.
        judged: whether a judge was asked.
    """
    quantities = [quantity for quantity in QUANTITIES.values() if judged or not quantity.optional]
    share = FALSE_ALARMS / len(quantities)
    expected = expected_first_token(baseline.first_tokens)
    return tuple(_compare(quantity, observations, baseline, expected, share) for quantity in quantities)


def level_of(comparison: Comparison) -> float | None:
    """Return the level of a quantity, since the drift if there is one: its share or its median; None without values."""
    values = comparison.values[(comparison.since or 1) - 1 :]
    if not values:
        return None
    style = QUANTITIES[comparison.name].style
    return statistics.fmean(values) if style == "share" else statistics.median(values)


def expected_first_token(speeds: Speeds) -> Callable[[float], float] | None:
    """Return a function from the tokens of a prompt to the time to its first token in ms; None without speeds.

    It goes through the median of each length. Beyond the longest prompt it rises as it did before.
    """
    lengths: dict[float, list[float]] = {}
    for tokens, milliseconds in speeds:
        lengths.setdefault(round(tokens, -1), []).append(
            milliseconds
        )  # the lengths of an effort differ by a few tokens
    if not lengths:
        return None
    x = np.array(sorted(lengths), float)
    y = np.maximum.accumulate([statistics.median(lengths[length]) for length in sorted(lengths)])
    slope = (y[-1] - y[-2]) / (x[-1] - x[-2]) if len(x) > 1 else 0.0
    return lambda tokens: float(np.interp(tokens, x, y) + slope * max(0.0, tokens - x[-1]))


def _compare(
    quantity: Quantity,
    observations: Sequence[Observation],
    baseline: BaselineValues,
    expected: Callable[[float], float] | None,
    false_alarms: float,
) -> Comparison:
    measured = [observation for observation in observations if quantity.name in observation.values]
    before = list(baseline.values.get(quantity.name, ()))
    relative = quantity.name == "ttft_ms" and expected is not None
    values = [observation.values[quantity.name] for observation in measured]
    if relative and expected is not None:
        before = [milliseconds / expected(tokens) for tokens, milliseconds in baseline.first_tokens]
        values = [o.values["ttft_ms"] / expected(o.values.get("prompt_tokens", 0)) for o in measured]
    before, values = _rounded(before), _rounded(values)
    drift = find_drift(before, values, false_alarms, seed=len(values), change=quantity.change)
    times = tuple(observation.served.time_ms for observation in measured)
    return Comparison(
        name=quantity.name,
        relative=relative,
        verdict=_verdict(drift),
        sentence=sentence(quantity, drift, before, values, times, relative),
        alarm_line=1 / false_alarms,
        since=drift.since,
        alarm_at=drift.alarm_at,
        baseline=tuple(before),
        values=tuple(values),
        times_ms=times,
        capital=tuple(_rounded(drift.capital)),
    )


def _verdict(drift: Drift) -> Verdict:
    if drift.alarm_at is not None:
        return "drift"
    return "no drift" if drift.values >= LEAST else "too few values"


def _rounded(values: Iterable[float]) -> list[float]:
    return [float(f"{value:.6g}") for value in values]
