"""One run of the project as a Databricks job: what is submitted, and how it is followed and stopped.

Jobs API 2.2: https://docs.databricks.com/api/workspace/jobs/submit
"""

import contextlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from steps.common.errors import StepError
from steps.databricks.cluster import Cluster
from steps.databricks.retry import patiently

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.service.jobs import Run

LAUNCHER = "steps/databricks/launch.py"
_PROVIDERS = (  # what a repository's host has in it -> the Jobs API's name of who serves it; the first that fits
    ("github.com", "gitHub"),
    ("gitlab.com", "gitLab"),
    ("bitbucket.org", "bitbucketCloud"),
    ("dev.azure.com", "azureDevOpsServices"),
    ("visualstudio.com", "azureDevOpsServices"),
    ("codecommit", "awsCodeCommit"),
    ("gitlab", "gitLabEnterpriseEdition"),
    ("bitbucket", "bitbucketServer"),
    ("", "gitHubEnterprise"),
)
_ENDED = ("TERMINATED", "SKIPPED", "INTERNAL_ERROR")
_POLL_S = 2.0
_CANCEL_S = 120.0


@dataclass(frozen=True)
class Order:
    """What the launcher is told: an entry point, its parameters, and where its run is."""

    entry_point: str
    parameters: dict[str, str]
    tracking_uri: str
    registry_uri: str
    experiment_id: str
    run_id: str
    env_manager: str
    uc_schema: str

    def arguments(self) -> list[str]:
        """As launch.py reads them."""
        given = {
            "--entry-point": self.entry_point,
            "--tracking-uri": self.tracking_uri,
            "--registry-uri": self.registry_uri,
            "--experiment-id": self.experiment_id,
            "--run-id": self.run_id,
            "--env-manager": self.env_manager,
            "--uc-schema": self.uc_schema,
        }
        return [f"{name}={value}" for name, value in given.items() if value] + [
            part for name, value in self.parameters.items() for part in ("-P", f"{name}={value}")
        ]


def git_source(url: str, version: str) -> dict[str, str]:
    """The Jobs API's `git_source` for a repository and a branch, a tag (`tags/NAME`) or a full commit.

    Raises:
        StepError: the URL has credentials in it.
    """
    address = urlparse(url)
    if address.password or (address.username and address.scheme != "ssh"):
        raise StepError("source is a URL with credentials in it: leave them out, and add them to the workspace instead")
    kind = next(kind for part, kind in _PROVIDERS if part in (address.hostname or ""))
    if re.fullmatch(r"[0-9a-f]{40}", version):
        return {"git_url": url, "git_provider": kind, "git_commit": version}
    if version.startswith("tags/"):
        return {"git_url": url, "git_provider": kind, "git_tag": version.removeprefix("tags/")}
    return {"git_url": url, "git_provider": kind, "git_branch": version or "main"}


def payload(
    order: Order, cluster: Cluster, packages: list[str], folder: str, git: dict[str, str] | None, timeout_s: int
) -> dict[str, Any]:
    """The body of jobs/runs/submit.

    Args:
        packages: pip requirements that the cluster needs beside the cluster file's.
        folder: the project's folder in the workspace; unused with `git`.
    """
    listed = {library["pypi"]["package"].partition("==")[0] for library in cluster.libraries if "pypi" in library}
    libraries = [{"pypi": {"package": line}} for line in packages if line.partition("==")[0] not in listed]
    task = {
        "task_key": "phi_mlflow",
        "spark_python_task": {
            "python_file": LAUNCHER if git else f"{folder}/{LAUNCHER}",
            "source": "GIT" if git else "WORKSPACE",
            "parameters": order.arguments(),
        },
        **cluster.place,
        "libraries": [*cluster.libraries, *libraries],
    }
    body: dict[str, Any] = {
        "run_name": f"phi-mlflow {order.entry_point}",
        "tasks": [task],
        "idempotency_token": order.run_id,  # an answer that is lost makes no second job
    }
    return body | ({"git_source": git} if git else {}) | ({"timeout_seconds": timeout_s} if timeout_s else {})


def submit(client: "WorkspaceClient", body: dict[str, Any], cluster: str) -> int:
    """Submit; the job run's ID.

    Args:
        cluster: what the user called the cluster file, for errors.

    Raises:
        StepError: the workspace refuses it.
    """
    from databricks.sdk.errors import DatabricksError
    from databricks.sdk.service.jobs import GitSource, SubmitTask

    arguments = dict(body)
    arguments["tasks"] = [SubmitTask.from_dict(task) for task in body["tasks"]]
    if "git_source" in body:
        arguments["git_source"] = GitSource.from_dict(body["git_source"])
    try:
        return patiently(client, lambda: client.jobs.submit(**arguments)).response.run_id
    except DatabricksError as error:
        raise StepError(
            f"the workspace refuses the job ({' '.join(str(error).split())}): correct {cluster}, or ask for the right"
        ) from None


def follow(
    client: "WorkspaceClient", run_id: int, changed: Callable[["Run"], object], notice: Callable[[str], object]
) -> "Run":
    """Wait until a job run has ended; the run.

    Args:
        changed: called with the run every time that it was asked for.
        notice: called with a line for the user when the workspace does not answer.
    """
    while True:
        run = patiently(client, lambda: client.jobs.get_run(run_id), notice)
        changed(run)
        if run.state.life_cycle_state.value in _ENDED:
            return run
        time.sleep(_POLL_S)


def cancel(client: "WorkspaceClient", run_id: int) -> bool:
    """Cancel a job run, and wait until it has ended; whether it has."""
    from databricks.sdk.errors import DatabricksError

    with contextlib.suppress(DatabricksError, StepError):
        patiently(client, lambda: client.jobs.cancel_run(run_id))
        deadline = time.monotonic() + _CANCEL_S
        while time.monotonic() < deadline:
            run = patiently(client, lambda: client.jobs.get_run(run_id))
            if run.state.life_cycle_state.value in _ENDED:
                return True
            time.sleep(0.5)
    return False


def cause(run: "Run") -> str:
    """Why a job run ended as it did, in Databricks' own words."""
    state, details = run.state, run.status.termination_details if run.status else None
    parts = [state.result_state.value if state.result_state else state.life_cycle_state.value]
    if details and details.code and details.code.value not in parts:
        parts.append(details.code.value)
    message = " ".join((state.state_message or "").split())
    return f"{', '.join(parts)}{f': {message}' if message else ''}"


def output(client: "WorkspaceClient", run: "Run") -> str:
    """What the job printed, as far as Databricks keeps it (the last 5 MB); empty where it can't be had."""
    from databricks.sdk.errors import DatabricksError

    if not run.tasks:
        return ""
    with contextlib.suppress(DatabricksError, StepError):
        found = patiently(client, lambda: client.jobs.get_run_output(run.tasks[0].run_id))
        return "\n".join(part for part in (found.logs, found.error, found.error_trace) if part)
    return ""
