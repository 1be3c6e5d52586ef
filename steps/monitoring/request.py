"""What the user asks of a monitoring: the parameters, parsed and checked."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from steps.common.errors import StepError, one_of
from steps.evaluation.request import check_judge

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_LONGEST = timedelta(days=3650)


@dataclass(frozen=True)
class Request:
    """What one monitoring is to do."""

    model: str  # a model's URI, or the name of a registered model
    since: str  # as the user gave it
    period: timedelta
    limit: int  # requests to read, at most
    judge: str  # empty for none
    fail_on_drift: bool


def read_request(params: Mapping[str, str]) -> Request:
    """Return what the parameters ask for.

    Raises:
        StepError: a parameter has a wrong value.
    """
    limit = params["limit"]
    if not limit.isdecimal() or not 1 <= int(limit) <= 1_000_000:
        raise StepError(f"limit is {limit!r}; expected a number of requests from 1 to 1000000")
    check_judge(params["judge"])
    return Request(
        model=params["model"],
        since=params["since"],
        period=_period(params["since"]),
        limit=int(limit),
        judge=params["judge"],
        fail_on_drift=one_of("fail_on_drift", params["fail_on_drift"], ("true", "false")) == "true",
    )


def _period(since: str) -> timedelta:
    given = re.fullmatch(r"([1-9][0-9]{0,8})([mhd])", since)
    period = timedelta(**{_UNITS[given[2]]: int(given[1])}) if given else timedelta()
    if not timedelta() < period <= _LONGEST:
        raise StepError(f"since is {since!r}; expected minutes, hours or days, such as 30m, 24h or 7d")
    return period
