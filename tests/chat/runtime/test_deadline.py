"""The deadline stops the function that is late, and nothing else."""

import time
from functools import partial

import pytest

from steps.chat.runtime.deadline import run_within

pytestmark = pytest.mark.unit


def test_a_function_in_time_returns_and_raises_as_it_would_alone():
    assert run_within(5, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        run_within(5, lambda: 1 // 0)


def test_a_late_function_is_stopped_even_if_it_catches_exceptions():
    def late() -> None:
        while True:
            try:
                while True:
                    pass
            except Exception:  # noqa: S110  a function that swallows what it can
                pass

    with pytest.raises(TimeoutError, match=r"stopped after 0\.2 s"):
        run_within(0.2, late)


def test_code_after_a_call_is_never_interrupted():
    """Calls that end close to the deadline: whichever thread is first, the exception stays inside the call."""
    outcomes = set()
    for attempt in range(40):
        try:
            outcomes.add(run_within(0.1, partial(_spin, time.monotonic() + 0.08 + attempt % 8 * 0.02)))
        except TimeoutError:
            outcomes.add("late")
        for _ in range(1000):
            pass
    time.sleep(0.3)
    assert outcomes == {"in time", "late"}


def _spin(end: float) -> str:
    while time.monotonic() < end:
        pass
    return "in time"
