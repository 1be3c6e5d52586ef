"""Close runs whose own process could not. No run stays RUNNING, and no failed run keeps anything like a result."""

import socket
import uuid
from typing import TYPE_CHECKING

from steps.runs.tags import CREATED_MODEL_TAG, ERROR_TAG, MAX_TAG, PARENT_TAG, PROCESS_TAG, REJECTED_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

LOGS = "logs"  # the artifact folder that a failed run keeps


def close_run(client: "MlflowClient", run: "Run", cause: str, status: str = "FAILED") -> None:
    """End a run that is RUNNING, and its children. Record the cause as the tag `error`, and discard the results."""
    if run.info.status == "RUNNING":
        close_children(client, run)
        _end(client, run, cause, status)


def _end(client: "MlflowClient", run: "Run", cause: str, status: str) -> None:
    if ERROR_TAG not in run.data.tags:
        client.set_tag(run.info.run_id, ERROR_TAG, cause[:MAX_TAG])
    client.set_terminated(run.info.run_id, status)
    discard_results(client, run)


def claim(client: "MlflowClient", run: "Run") -> None:
    """Tag a run with the process that works on it, so that a later run can tell whether the process still lives."""
    import psutil

    process = psutil.Process()
    client.set_tag(run.info.run_id, PROCESS_TAG, f"{_machine()} {process.pid} {process.create_time():.0f}")


def close_abandoned(client: "MlflowClient", experiment_id: str) -> None:
    """Close the RUNNING runs whose process on this machine was killed or lost the tracking server.

    A child run whose own process still lives, here or on another machine, goes on: it may outlive a killed parent.
    """
    for run in client.search_runs([experiment_id], "attributes.status = 'RUNNING'"):
        if _is_abandoned(run):
            cause = "its process ended without closing the run: it was killed, or it lost the tracking server"
            _end(client, run, cause, "FAILED")
            for child in children(client, run):
                if child.info.status == "RUNNING" and PROCESS_TAG not in child.data.tags:
                    client.set_terminated(child.info.run_id, "FAILED")


def _is_abandoned(run: "Run") -> bool:
    """Return whether a process of this machine worked on the run and no longer exists."""
    import psutil

    host, pid, start_time = (run.data.tags.get(PROCESS_TAG, "").split() + ["", "", ""])[:3]
    if host != _machine() or not pid.isdecimal():
        return False
    try:
        return f"{psutil.Process(int(pid)).create_time():.0f}" != start_time
    except psutil.NoSuchProcess:
        return True


def _machine() -> str:
    """Return a name of this machine or container. The host name alone may occur twice."""
    return f"{socket.gethostname()}/{uuid.getnode():x}"


def close_children(client: "MlflowClient", parent: "Run") -> None:
    """End every child that is RUNNING, and discard the results of every child that failed."""
    for child in children(client, parent):
        if child.info.status == "RUNNING":
            client.set_terminated(child.info.run_id, "FAILED")
            close_children(client, child)  # an evaluation has child runs, too
        if child.info.status != "FINISHED" and REJECTED_TAG not in child.data.tags:
            discard_results(client, child)  # a child that was killed could not discard them


def children(client: "MlflowClient", parent: "Run") -> "list[Run]":
    """Return the child runs of a run, the latest first."""
    return client.search_runs(
        [parent.info.experiment_id],
        f"tags.`{PARENT_TAG}` = '{parent.info.run_id}'",
        order_by=["attributes.start_time DESC"],
    )


def discard_results(client: "MlflowClient", run: "Run") -> None:
    """Delete what a failed run produced: registered versions, logged models, and artifacts except its logs.

    A registered model that the run created is deleted, too, if it has no version.

    Some stores delete no artifacts, Databricks' for example. The files stay there, but no step reads them, because the
    run is FAILED.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    for version in client.search_model_versions(f"run_id = '{run.info.run_id}'"):
        client.delete_model_version(version.name, version.version)
    created = client.get_run(run.info.run_id).data.tags.get(CREATED_MODEL_TAG)
    if created and not client.search_model_versions(f"name = '{created}'"):
        client.delete_registered_model(created)
        client.delete_tag(run.info.run_id, CREATED_MODEL_TAG)
    for model in client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'"):
        get_artifact_repository(model.artifact_location).delete_artifacts()
        client.delete_logged_model(model.model_id)
    for artifact in client.list_artifacts(run.info.run_id):
        if artifact.path != LOGS:
            get_artifact_repository(run.info.artifact_uri).delete_artifacts(artifact.path)
