"""monitoring.json: everything that one monitoring found, as a typed document.

The page, the charts, the metrics and the tags read these classes. Times are in UTC to the minute, or milliseconds since
1970 where a name ends in `_ms`. A share lies between 0 and 1.
"""

from typing import ClassVar, Literal

from steps.common.documents import Document, Part

Verdict = Literal["drift", "no drift", "too few values"]


class Baseline(Part):
    """What the requests are compared with."""

    kind: Literal["own evaluation", "champion's evaluation", "none"]
    run: str  # of the evaluation; empty for none
    model: str  # that was evaluated, by its label; empty for none
    answers: int  # of the evaluation that were read
    cpu: str  # of the machine that measured the times; empty for none
    reason: str  # why there is no better baseline; empty if there is nothing to say


class Comparison(Part):
    """One quantity: its values in the order of their time, and the test of whether they drifted."""

    name: str  # in quantities.QUANTITIES
    relative: bool  # whether the values are multiples of the evaluation's
    verdict: Verdict
    sentence: str  # the verdict in words
    alarm_line: float  # the test finds a drift where its capital reaches this
    since: int | None  # the number of the value, from 1, at which the drift began
    alarm_at: int | None  # the number of the value at which the test found it
    baseline: tuple[float, ...]
    values: tuple[float, ...]
    times_ms: tuple[int, ...]  # of the values
    capital: tuple[float, ...]  # of the test, after each value


class Notable(Part):
    """A request that is worth a look, without secrets."""

    trace_id: str
    time: str
    reason: str
    question: str
    answer: str


class Counts(Part):
    """How many requests there were."""

    read: int
    left_out: bool  # whether older requests of the period were not read
    gone: int  # whose client went away; they are not compared
    limit: int


class Monitoring(Document):
    """The whole of monitoring.json."""

    written_by: ClassVar[str] = "monitor"
    schema_version: Literal[1] = 1
    run: str
    model: str  # as the user gave it
    watched: str  # whose traces were read
    experiment: str  # in which they are
    since: str  # as the user gave it
    start: str
    end: str
    requests: Counts
    false_alarms: float  # the largest probability that any comparison finds a drift where there is none
    judge: str  # empty for none
    baseline: Baseline
    comparisons: tuple[Comparison, ...]
    notable: tuple[Notable, ...]
    reproduce: tuple[str, ...]  # commands

    @property
    def drifts(self) -> tuple[Comparison, ...]:
        """The comparisons that found a drift."""
        return tuple(comparison for comparison in self.comparisons if comparison.verdict == "drift")
