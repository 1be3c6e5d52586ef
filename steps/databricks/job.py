"""A job run on Databricks: submit it, follow it to its end, cancel it, read its output."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from steps.common.errors import StepError
from steps.databricks.retry import patiently

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.service.jobs import Run

_ENDED = ("TERMINATED", "SKIPPED", "INTERNAL_ERROR")
_POLL_S = 2.0
_CANCEL_S = 120.0


@dataclass(frozen=True)
class JobRun:
    """A job run, as Databricks describes it. Texts are empty where Databricks says nothing."""

    run_id: int
    task_run_id: int | None
    """The run of the job's only task, which has the output."""
    page: str
    """URL of the run's page."""
    state: str
    """The life cycle state, such as PENDING, RUNNING or TERMINATED."""
    result: str
    """SUCCESS, FAILED, CANCELED, ...; empty until the run has ended."""
    termination: str
    """The code of the termination, such as CLUSTER_ERROR."""
    message: str
    description: dict[str, Any]
    """Everything that Databricks says about the run, as JSON."""

    @property
    def has_ended(self) -> bool:
        """Return whether the run has ended."""
        return self.state in _ENDED

    @property
    def cause(self) -> str:
        """Return why the run ended as it did, in the words of Databricks."""
        codes = ", ".join(dict.fromkeys(filter(None, (self.result or self.state, self.termination))))
        message = " ".join(self.message.split())
        return f"{codes}: {message}" if message else codes

    @property
    def line(self) -> str:
        """Return the state as a line for the user."""
        return "  ".join(filter(None, (self.state, self.result, self.message)))


def submit(client: "WorkspaceClient", body: dict[str, Any], cluster: str) -> int:
    """Submit a job; return the ID of its run.

    Args:
        body: of jobs/runs/submit.
        cluster: the cluster file, as the user named it, for errors.

    Raises:
        StepError: the workspace rejected the job.
    """
    from databricks.sdk.errors import DatabricksError
    from databricks.sdk.service.jobs import GitSource, SubmitTask

    arguments = dict(body)
    arguments["tasks"] = [SubmitTask.from_dict(task) for task in body["tasks"]]
    if "git_source" in body:
        arguments["git_source"] = GitSource.from_dict(body["git_source"])
    try:
        run_id: int = patiently(client, lambda: client.jobs.submit(**arguments)).bind()["run_id"]
    except DatabricksError as error:
        raise StepError(
            f"the workspace rejected the job ({' '.join(str(error).split())}): correct {cluster}, or ask for the "
            "permission"
        ) from None
    return run_id


def follow(client: "WorkspaceClient", run_id: int, notice: Callable[[str], object]) -> Iterator[JobRun]:
    """Yield the job run every two seconds; the last time when it has ended.

    Args:
        notice: called with a line for the user when the workspace does not answer.

    Raises:
        StepError: the workspace did not answer for too long.
    """
    while True:
        run = _read(client, run_id, notice)
        yield run
        if run.has_ended:
            return
        time.sleep(_POLL_S)


def cancel(client: "WorkspaceClient", run_id: int) -> bool:
    """Cancel a job run, wait up to two minutes for its end, and return whether it has ended."""
    from databricks.sdk.errors import DatabricksError

    with contextlib.suppress(DatabricksError, StepError):
        patiently(client, lambda: client.jobs.cancel_run(run_id))
        deadline = time.monotonic() + _CANCEL_S
        while time.monotonic() < deadline:
            if _read(client, run_id).has_ended:
                return True
            time.sleep(0.5)
    return False


def output(client: "WorkspaceClient", run: JobRun) -> str:
    """Return what the job printed: the last 5 MB, which is what Databricks keeps. Empty if it cannot be read."""
    from databricks.sdk.errors import DatabricksError

    if run.task_run_id is None:
        return ""
    task_run_id = run.task_run_id
    with contextlib.suppress(DatabricksError, StepError):
        printed = patiently(client, lambda: client.jobs.get_run_output(task_run_id))
        return "\n".join(part for part in (printed.logs, printed.error, printed.error_trace) if part)
    return ""


def _read(client: "WorkspaceClient", run_id: int, notice: Callable[[str], object] | None = None) -> JobRun:
    """Ask the workspace for a job run."""
    return _job_run(run_id, patiently(client, lambda: client.jobs.get_run(run_id), notice))


def _job_run(run_id: int, run: "Run") -> JobRun:
    """Return the parts of the SDK's answer that matter here. In the SDK every part may be missing."""
    state = run.state
    details = run.status.termination_details if run.status else None
    return JobRun(
        run_id=run_id,
        task_run_id=run.tasks[0].run_id if run.tasks else None,
        page=run.run_page_url or "",
        state=state.life_cycle_state.value if state and state.life_cycle_state else "",
        result=state.result_state.value if state and state.result_state else "",
        termination=details.code.value if details and details.code else "",
        message=(state.state_message or "") if state else "",
        description=run.as_dict(),
    )
