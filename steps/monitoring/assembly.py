"""Turn what was read into a Monitoring: the comparisons, the counts, and the requests that are worth a look."""

from collections.abc import Sequence
from dataclasses import dataclass

from steps.evaluation.report.formatting import shorten
from steps.monitoring.compare import FALSE_ALARMS, BaselineValues, compare
from steps.monitoring.request import Request
from steps.monitoring.results import Baseline, Counts, Monitoring, Notable
from steps.monitoring.served import GONE, Observation
from steps.monitoring.wording import moment

_NOTABLE = 12  # requests on the page
_LONGEST = 600  # characters of a question or an answer


@dataclass(frozen=True)
class Origins:
    """What a monitoring belongs to."""

    run_id: str
    watched: str
    experiment: str
    start_ms: int
    end_ms: int
    command: str  # that monitors again


@dataclass(frozen=True)
class Findings:
    """What was read."""

    observations: Sequence[Observation]  # in the order of their time
    left_out: bool  # whether older requests were not read
    baseline: Baseline
    baseline_values: BaselineValues


def assemble(request: Request, origins: Origins, findings: Findings) -> Monitoring:
    """Return the monitoring."""
    compared = [observation for observation in findings.observations if observation.served.status != GONE]
    return Monitoring(
        run=origins.run_id,
        model=request.model,
        watched=origins.watched,
        experiment=origins.experiment,
        since=request.since,
        start=moment(origins.start_ms),
        end=moment(origins.end_ms),
        requests=Counts(
            read=len(findings.observations),
            left_out=findings.left_out,
            gone=len(findings.observations) - len(compared),
            limit=request.limit,
        ),
        false_alarms=FALSE_ALARMS,
        judge=request.judge,
        baseline=findings.baseline,
        comparisons=compare(compared, findings.baseline_values, bool(request.judge)),
        notable=_notable(compared),
        reproduce=(origins.command,),
    )


def _notable(observations: Sequence[Observation]) -> tuple[Notable, ...]:
    """Return the latest requests that failed, or whose answer has a flaw, declines, or was rejected by the judge."""
    with_reasons = [(observation, _reason(observation)) for observation in reversed(observations)]
    return tuple(
        Notable(
            trace_id=observation.served.trace_id,
            time=moment(observation.served.time_ms),
            reason=reason,
            question=shorten(observation.served.question, _LONGEST),
            answer=shorten("\n\n".join(observation.served.texts), _LONGEST),
        )
        for observation, reason in with_reasons
        if reason
    )[:_NOTABLE]


def _reason(observation: Observation) -> str:
    values = observation.values
    if values.get("failed"):
        return f"failed, status {observation.served.status}"
    if observation.flaw:
        return observation.flaw
    if values.get("declined"):
        return "declines"
    return "rejected by the judge" if values.get("rejected") else ""
