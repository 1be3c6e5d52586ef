"""What a monitoring says in sentences."""

import statistics
from collections.abc import Sequence
from datetime import UTC, datetime

from steps.evaluation.report.formatting import count, percent, significant
from steps.monitoring.drift import Drift
from steps.monitoring.quantities import QUANTITIES, Quantity
from steps.monitoring.results import Monitoring

LEAST = 20  # values; below that, no drift means nothing


def level(quantity: Quantity, values: Sequence[float], relative: bool) -> str:
    """Return the level of values in words: their share, or their median with its unit."""
    if not values:
        return "no values"
    if quantity.style == "share":
        return percent(statistics.fmean(values))
    unit = "times the evaluation's" if relative else quantity.style
    middle = statistics.median(values)
    return f"median {f'{middle:,.6g}' if quantity.style == 'tokens' else significant(middle)} {unit}"


def sentence(
    quantity: Quantity,
    drift: Drift,
    baseline: Sequence[float],
    values: Sequence[float],
    times_ms: Sequence[int],
    relative: bool,
) -> str:
    """Return the result of one test: what it found, since when, and the levels before and after.

    Args:
        times_ms: of the values.
    """
    before = f"{level(quantity, baseline, relative)} in the evaluation"
    if relative:
        before = "at the same prompt length"
    if drift.alarm_at is not None and drift.since is not None:
        after = level(quantity, values[drift.since - 1 :], relative)
        if not baseline:
            earlier = values[: drift.since - 1]
            before = f"{level(quantity, earlier, relative)} before" if earlier else "no baseline"
        start = f"since request {drift.since:,} of {len(values):,} ({moment(times_ms[drift.since - 1])})"
        return f"drift {start}: {after}, {before}; found at request {drift.alarm_at:,}"
    now = level(quantity, values, relative)
    if not baseline:
        before = "no baseline, so the requests were compared with each other"
    if not values:
        return "too few values: no request has one"
    kind = "no drift in" if drift.values >= LEAST else f"too few values, {LEAST} are needed:"
    return f"{kind} {count(len(values), 'request')}: {now}, {before}"


def moment(milliseconds: int) -> str:
    """Return a time in UTC, such as 2026-11-28 01:20 UTC."""
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M} UTC"


def verdict_line(monitoring: Monitoring) -> str:
    """Return the verdict of the whole: how many requests, and which quantities drifted."""
    requests = f"{count(monitoring.requests.read, 'request')} of {monitoring.watched}"
    drifts = [QUANTITIES[drift.name].title for drift in monitoring.drifts]
    if drifts:
        return f"drift in {', '.join(title[:1].lower() + title[1:] for title in drifts)}: {requests}"
    enough = [one for one in monitoring.comparisons if one.verdict == "no drift"]
    return f"no drift in {requests}" if enough else f"too few values in {requests} for a verdict"
