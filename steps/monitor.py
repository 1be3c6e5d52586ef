"""monitor: a served model -> a run that says whether its requests drifted from its evaluation: `report.html`.

The run holds `monitoring.json`, `report.html`, a chart and metrics for each quantity. A registered version gets the
verdict as the tag `monitoring`. A drift is a finding, and the run is FINISHED, unless `fail_on_drift` is true.
"""

import shlex
import time

from steps.common.errors import Rejected, StepError
from steps.monitoring.assembly import Findings, Origins, assemble
from steps.monitoring.judge import with_verdicts
from steps.monitoring.recording.baseline import Evaluated, find_baseline
from steps.monitoring.recording.record import description, log_monitoring, tag_version
from steps.monitoring.recording.traces import Search, read_requests
from steps.monitoring.recording.watched import Watched, find_watched
from steps.monitoring.request import Request, read_request
from steps.monitoring.results import Monitoring
from steps.monitoring.served import observe
from steps.monitoring.wording import verdict_line
from steps.runs.entry_point import run_entry_point
from steps.runs.step import Step

_BAR = "{desc} {n_fmt}"


def check(params: dict[str, str]) -> None:
    """Raise StepError for a parameter that cannot be right, before any work."""
    read_request(params)


def monitor(step: Step, **params: str) -> None:
    """Read the requests and the evaluation, compare them, record the verdict.

    Raises:
        StepError: there is no such model, or there are no traces of it.
        Rejected: a quantity drifted, and the user wants the run to fail then.
    """
    request = read_request(params)
    watched = find_watched(step.client, request.model)
    search = _search(step, request, watched)
    findings = _read(step, request, watched, search)
    origins = Origins(
        run_id=step.run_id,
        watched=watched.text,
        experiment=step.client.get_experiment(search.experiment_id).name,
        start_ms=search.start_ms,
        end_ms=search.end_ms,
        command=_command(params),
    )
    monitoring = assemble(request, origins, findings)
    with step.console.phase("monitor: drawing the report"):
        log_monitoring(step.client, monitoring)
    verdict = verdict_line(monitoring)
    step.tag(drift=", ".join(drift.name for drift in monitoring.drifts) or "none")
    step.summarise(verdict, description(monitoring))
    tag_version(step.client, monitoring, watched)
    _print(step, monitoring)
    if monitoring.drifts and request.fail_on_drift:
        raise Rejected(f"{verdict}: see report.html of run {step.run_id}")


def _search(step: Step, request: Request, watched: Watched) -> Search:
    now = int(1000 * time.time())
    start = now - int(1000 * request.period.total_seconds())
    return Search(step.run.info.experiment_id, watched.filter, start, now, request.limit)


def _read(step: Step, request: Request, watched: Watched, search: Search) -> Findings:
    """Read the requests and the baseline, with progress on the console; ask the judge if there is one."""
    with step.console.bar_class()(desc="reading traces", bar_format=_BAR) as bar:
        found = read_requests(step.client, search, bar.update)
        if not found.requests:
            experiment = step.client.get_experiment(search.experiment_id).name
            raise StepError(
                f"no request of {watched.text} in the last {request.since} left a trace in the experiment "
                f"{experiment!r}: serve the model with -P trace=0.1 or more in this experiment, or give a longer since"
            )
        evaluated = find_baseline(step.client, watched, request.limit, bar.update)
        observations = tuple(map(observe, found.requests))
        if request.judge:
            bar.set_description_str("asking the judge")
            observations = with_verdicts(request.judge, observations, bar.update)
            answers = with_verdicts(request.judge, evaluated.answers, bar.update) if evaluated.answers else ()
            evaluated = Evaluated(evaluated.baseline, answers, evaluated.model)
    return Findings(observations, found.left_out, evaluated.baseline, evaluated.values())


def _print(step: Step, monitoring: Monitoring) -> None:
    """Print a line for the baseline and a line for each quantity."""
    baseline = monitoring.baseline
    run = f"{baseline.kind} of {baseline.model}, run {baseline.run}" if baseline.run else "none"
    step.console.line(f"baseline: {run}{f' ({baseline.reason})' if baseline.reason else ''}")
    for comparison in monitoring.comparisons:
        step.console.line(f"{comparison.name:<14} {comparison.sentence}")


def _command(params: dict[str, str]) -> str:
    """Return the command that monitors again."""
    arguments = " ".join(f"-P {name}={shlex.quote(value)}" for name, value in params.items() if value)
    return f"mlflow run . -e monitor {arguments}"


if __name__ == "__main__":
    run_entry_point("monitor", monitor, check)
