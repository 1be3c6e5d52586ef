"""The parameters of `monitor`: what is taken, and the one line that refuses the rest."""

from datetime import timedelta

import pytest

from steps.common.errors import StepError
from steps.monitoring.request import read_request

pytestmark = pytest.mark.unit
PARAMS = {"model": "models:/m/1", "since": "24h", "limit": "5000", "judge": "", "fail_on_drift": "false"}


@pytest.mark.parametrize(("since", "hours"), [("30m", 0.5), ("24h", 24), ("7d", 168), ("1m", 1 / 60)])
def test_a_period(since, hours):
    assert read_request(PARAMS | {"since": since}).period == timedelta(hours=hours)


@pytest.mark.parametrize("since", ["abc", "", "24", "0h", "-3h", "1.5h", "24 h", "24H", "99999999d", "٣h", "1h\n"])
def test_a_wrong_period_is_one_line(since):
    with pytest.raises(StepError, match="expected minutes, hours or days, such as 30m, 24h or 7d") as caught:
        read_request(PARAMS | {"since": since})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("limit", "0", "limit is '0'; expected a number of requests"),
        ("limit", "many", "limit is 'many'"),
        ("fail_on_drift", "yes", "fail_on_drift is 'yes'; valid: false, true"),
        ("judge", "gpt-5", "judge is 'gpt-5'; expected nothing, or a model"),
    ],
)
def test_other_wrong_values(name, value, message):
    with pytest.raises(StepError, match=message):
        read_request(PARAMS | {name: value})
