"""submit_databricks: an entry point and a cluster file -> a job on Databricks that runs the entry point.

The run holds what was submitted and what came back (`job/`). Its tags lead to the job and to the run of the entry
point, which is created here, before the job. Ctrl-C cancels the job, and no run stays open.
"""

import os
from typing import TYPE_CHECKING, Any

from steps.databricks.cluster import without_environment
from steps.databricks.files import upload_project
from steps.databricks.job import JobRun, cancel, follow, output, submit
from steps.databricks.options import Options, parse_options
from steps.databricks.payload import RunAddress, payload
from steps.databricks.retry import connect
from steps.project.mlproject import ROOT, entry_points, pinned_packages
from steps.project.profiles import read_profile
from steps.runs.entry_point import run_entry_point
from steps.runs.redaction import redact
from steps.runs.remote_run import RemoteRun, check_tracking_uri
from steps.runs.step import Step

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

_ONLY_HERE = ("submit_databricks", "test")  # entry points that make no sense on a cluster
_BASE_PACKAGES = ("mlflow", "uv")  # what a cluster needs to build the environment itself


def check(params: dict[str, str]) -> None:
    """Raise StepError for what cannot be submitted, before anything is uploaded."""
    options = _options(params)
    if options.entry_point == "main" and not options.git:  # the job runs the profile that is here
        profile = options.parameters.get("profile", entry_points()["main"]["profile"])
        read_profile(profile or "")
    check_tracking_uri()


def submit_databricks(step: Step, **params: str) -> None:
    """Upload the project, submit the job, follow it to its end, and record its result."""
    options = _options(params)
    client, user = connect()
    folder = "" if options.git else upload_project(client, ROOT, user, step.console.bar_class())
    remote = RemoteRun(step.run, options.entry_point, options.experiment, user)
    job_run = _run_job(step, client, options, folder, remote)
    _record(step, client, job_run, remote)


def _options(params: dict[str, str]) -> Options:
    runnable = {name: declared for name, declared in entry_points().items() if name not in _ONLY_HERE}
    return parse_options(params, ROOT, runnable)


def _run_job(step: Step, client: "WorkspaceClient", options: Options, folder: str, remote: RemoteRun) -> JobRun:
    """Submit the job, and follow it to its end. If this process stops earlier, no run stays open."""
    run_id: int | None = None
    try:
        remote.log_parameters(options.parameters)
        body = _body(options, folder, remote)
        step.log_json(without_environment(body), "job/submitted.json")
        step.tag(remote_run=remote.run_id)
        remote.hand_over()
        run_id = submit(client, body, options.cluster.name)
        return _show(step, client, run_id, remote)
    except KeyboardInterrupt:
        if run_id is not None and not cancel(client, run_id):
            step.console.error(f"submit_databricks: could not cancel job run {run_id}: cancel it in the workspace")
        remote.close("interrupted", killed=True)
        raise
    except Exception as error:
        if run_id is None:
            remote.close(str(error))
        else:  # the workspace can't be reached; the job goes on, and so does its run
            step.console.error(f"submit_databricks: job run {run_id} may go on; see it in the workspace")
        raise


def _body(options: Options, folder: str, remote: RemoteRun) -> dict[str, Any]:
    """Return the body of the submission."""
    registry_uri = os.environ.get("MLFLOW_REGISTRY_URI", "")
    run = RunAddress(remote.uri, registry_uri, remote.experiment_id, remote.run_id)
    packages = pinned_packages(None if options.env_manager == "local" else _BASE_PACKAGES)
    return payload(options, run, packages, folder)


def _show(step: Step, client: "WorkspaceClient", run_id: int, remote: RemoteRun) -> JobRun:
    """Show the job's page, its states and its finished steps until the job has ended; return its end."""
    state = ""
    for job_run in follow(client, run_id, step.console.error):
        if not state:
            tags = {"mlflow.databricks.runURL": job_run.page, "mlflow.databricks.jobRunID": str(run_id)}
            step.tag(**tags)
            remote.tag(**tags)
            step.console.line(f"job run {run_id}  {job_run.page}")
        if job_run.state == "RUNNING":
            remote.show_steps(step.console)
        if job_run.state != state:
            state = job_run.state
            step.console.line(job_run.line)
    return job_run


def _record(step: Step, client: "WorkspaceClient", job_run: JobRun, remote: RemoteRun) -> None:
    """Log the job's end and output, close the entry point's run if the job left it open, and record its summary."""
    step.log_json(without_environment(job_run.description), "job/run.json")
    step.client.log_text(step.run_id, redact(output(client, job_run)) or "none", "job/output.txt")
    remote.show_steps(step.console)
    remote.close(f"the job ended and left this run open: {job_run.cause}")
    job = f"job run {job_run.run_id}"
    summary = remote.finish(step.console, f"{job}, {job_run.cause}")
    line = f"{remote.entry_point} on Databricks, {job}: {summary}"
    step.summarise(line, f"{line}\n\n[The page of {job}]({job_run.page}), run `{remote.run_id}`")


if __name__ == "__main__":
    run_entry_point("submit_databricks", submit_databricks, check)
