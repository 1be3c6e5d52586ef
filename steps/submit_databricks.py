"""submit_databricks: an entry point and a cluster -> a job on Databricks that runs it, followed to its end.

This run holds what was submitted and what came back (`job/`), and its tags lead to the job and to the entry point's own
run. Ctrl-C cancels the job; no run stays open.
"""

import json
import os
import shlex
from typing import Any

from steps.common.errors import Rejected, StepError, nearest, one_of
from steps.databricks.cluster import read_cluster
from steps.databricks.files import project_files, upload
from steps.databricks.job import Order, cancel, cause, follow, git_source, output, payload, submit
from steps.databricks.retry import connect
from steps.project.mlproject import ROOT, entry_points, pinned_packages
from steps.project.profiles import read_profile
from steps.runs.console import step_line
from steps.runs.entry_point import run_entry_point
from steps.runs.redaction import redact
from steps.runs.remote_run import RemoteRun
from steps.runs.step import Step
from steps.runs.tags import ERROR_TAG, REJECTED_TAG, SUMMARY_TAG

_LOCAL = ("submit_databricks", "test")  # what makes no sense there
_ENV_MANAGERS = ("uv", "virtualenv", "conda", "local")
_BASE = ("mlflow", "uv")  # what a cluster needs to build the rest itself


def check(params: dict[str, str]) -> None:
    """Refuse what can't be submitted, before anything is uploaded."""
    runnable = [name for name in entry_points() if name not in _LOCAL]
    one_of("entry_point", params["entry_point"], runnable)
    one_of("env_manager", params["env_manager"], _ENV_MANAGERS)
    given = _parameters(params["entry_point"], params["params"])
    if params["entry_point"] == "main" and params["source"] == "workspace":  # which has the files that are here
        read_profile((entry_points()["main"] | given)["profile"])
    read_cluster(ROOT / params["cluster"], params["cluster"])
    if not params["timeout"].isdecimal():
        raise StepError(f"timeout is {params['timeout']!r}; expected seconds, or 0 for none")
    store = os.environ.get("MLFLOW_TRACKING_URI", "")
    if redact(store) != store:  # the job's parameters are for everybody to see
        raise StepError(
            f"MLFLOW_TRACKING_URI is {redact(store)}; expected no credentials in it: give them as "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, here and in the cluster's spark_env_vars"
        )
    if params["uc_schema"] and params["uc_schema"].count(".") != 1:
        raise StepError(f"uc_schema is {params['uc_schema']!r}; expected catalog.schema")
    if params["source"] != "workspace":
        if "://" not in params["source"]:
            raise StepError(f"source is {params['source']!r}; expected workspace, or the URL of a git repository")
        git_source(params["source"], params["version"])
    elif params["version"]:
        raise StepError(f"version is {params['version']!r}, which a git URL as the source would need; leave it out")


def submit_databricks(
    step: Step,
    entry_point: str,
    params: str,
    cluster: str,
    source: str,
    version: str,
    experiment: str,
    env_manager: str,
    uc_schema: str,
    timeout: str,
) -> None:
    """Bring the project there, submit, follow, and tell what came of it."""
    client, user = connect()
    folder, git = "", None
    if source == "workspace":
        names = project_files(ROOT)
        size = sum((ROOT / name).stat().st_size for name in names)
        with step.console.bar_class()(total=size, unit="B", unit_scale=True, desc="uploading the project") as bar:
            folder = upload(client, ROOT, names, f"/Workspace/Users/{user}/.phi-mlflow", bar.update)
    else:
        git = git_source(source, version)

    parameters = _parameters(entry_point, params)
    remote = RemoteRun(step.run, entry_point, experiment, user)
    job = None
    try:
        remote.log_parameters(parameters)
        order = Order(
            entry_point=entry_point,
            parameters=parameters,
            tracking_uri=remote.uri,
            registry_uri=os.environ.get("MLFLOW_REGISTRY_URI", ""),
            experiment_id=remote.experiment_id,
            run_id=remote.run_id,
            env_manager=env_manager,
            uc_schema=uc_schema,
        )
        packages = pinned_packages(None if env_manager == "local" else _BASE)
        body = payload(order, read_cluster(ROOT / cluster, cluster), packages, folder, git, int(timeout))
        step.log_json(_without_secrets(body), "job/submitted.json")
        step.tag(remote_run=remote.run_id)
        remote.hand_over()
        job = submit(client, body, cluster)
        ended = follow(client, job, _Display(step, remote, job), step.console.error)
    except KeyboardInterrupt:
        if job is not None and not cancel(client, job):
            step.console.error(f"submit_databricks: job run {job} could not be cancelled; see it in the workspace")
        remote.close("interrupted", killed=True)
        raise
    except Exception as error:
        if job is None:
            remote.close(str(error))
        else:  # the workspace is out of reach: the job goes on, and so does its run
            step.console.error(f"submit_databricks: job run {job} may go on; see it in the workspace")
        raise

    step.log_json(_without_secrets(ended.as_dict()), "job/run.json")
    step.client.log_text(step.run_id, redact(output(client, ended)) or "none", "job/output.txt")
    remote.show_steps(step.console)
    why = cause(ended)
    remote.close(f"its job ended without it: {why}")
    run = remote.state()
    if run.info.status != "FINISHED":
        kind = Rejected if REJECTED_TAG in run.data.tags else StepError
        raise kind(
            f"{entry_point} failed on Databricks (run {run.info.run_id}, job run {job}, {why}): "
            f"{run.data.tags.get(ERROR_TAG, 'see job/output.txt')}"
        )
    result = run.data.tags.get(SUMMARY_TAG, "")
    took = f"{(run.info.end_time - run.info.start_time) / 1000:.1f} s"
    step.console.line(step_line(entry_point, took, run.info.run_id, result))
    step.summarise(
        f"{entry_point} on Databricks, job run {job}: {result}",
        f"**{entry_point}** on Databricks: {result}\n\n[Job run {job}]({ended.run_page_url}), run `{run.info.run_id}`",
    )


class _Display:
    """Lines for a person: the job's page, each state as it comes, each step as it finishes."""

    def __init__(self, step: Step, remote: RemoteRun, job: int) -> None:
        self._step, self._remote, self._job, self._state = step, remote, job, ""

    def __call__(self, run: Any) -> None:
        state = run.state.life_cycle_state.value
        if not self._state:
            job_tags = {
                "mlflow.databricks.runURL": run.run_page_url or "",
                "mlflow.databricks.jobRunID": str(self._job),
            }
            self._step.tag(**job_tags)
            self._remote.tag(**job_tags)
            self._step.console.line(f"job run {self._job}  {run.run_page_url or ''}")
        if state == "RUNNING":
            self._remote.show_steps(self._step.console)
        if state != self._state:
            self._state = state
            result = run.state.result_state.value if run.state.result_state else ""
            self._step.console.line("  ".join(part for part in (state, result, run.state.state_message) if part))


def _parameters(entry_point: str, text: str) -> dict[str, str]:
    """`name=value name='a value'` as a dictionary, of names that the entry point has.

    Raises:
        StepError: it is not of that form, a name is unknown, or one that is needed is missing.
    """
    declared = entry_points()[entry_point]
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise StepError(f"params is {text!r}: {error}") from None
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise StepError(f"params has {word!r}; expected name=value, more of them with a space between")
        if name not in declared:
            raise StepError(f"params: {name!r} is unknown to {entry_point}; {nearest(name, declared)}")
        found[name] = value
    missing = [name for name, default in declared.items() if default is None and not found.get(name)]
    if missing:
        raise StepError(f"params: {entry_point} needs a value for {', '.join(missing)}: params='{missing[0]}=...'")
    return found


def _without_secrets(content: dict[str, Any]) -> dict[str, Any]:
    """A JSON value as it may be logged: a cluster's environment may hold tokens."""

    def clean(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: clean(one, f"{key}.{name}") for name, one in value.items()}
        if isinstance(value, list):
            return [clean(one, key) for one in value]
        return "<not logged>" if ".spark_env_vars." in key and not str(value).startswith("{{secrets/") else value

    return json.loads(redact(json.dumps(clean(content))))


if __name__ == "__main__":
    run_entry_point("submit_databricks", submit_databricks, check)
