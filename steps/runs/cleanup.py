"""Close runs whose process could not: none stays RUNNING, and none that failed keeps what could pass for a result."""

import socket
import uuid
from typing import TYPE_CHECKING

from steps.runs.tags import CREATED_MODEL_TAG, ERROR_TAG, PARENT_TAG, PROCESS_TAG, REJECTED_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

LOGS = "logs"  # the artifact folder that a failed run keeps


def close_run(client: "MlflowClient", run: "Run", cause: str, status: str = "FAILED") -> None:
    """End a run that is RUNNING, and its children, with the cause as its tag `error`; discard its results."""
    if run.info.status == "RUNNING":
        close_children(client, run)
        _end(client, run, cause, status)


def _end(client: "MlflowClient", run: "Run", cause: str, status: str) -> None:
    if ERROR_TAG not in run.data.tags:
        client.set_tag(run.info.run_id, ERROR_TAG, cause[:5000])
    client.set_terminated(run.info.run_id, status)
    discard_results(client, run)


def claim(client: "MlflowClient", run: "Run") -> None:
    """Leave on a run which process works on it, so that it can be seen later that there is none any more."""
    import psutil

    own = psutil.Process()
    client.set_tag(run.info.run_id, PROCESS_TAG, f"{_machine()} {own.pid} {own.create_time():.0f}")


def close_abandoned(client: "MlflowClient", experiment_id: str) -> None:
    """Close the runs that processes of this machine left RUNNING: killed, or cut off from the tracking server.

    A child that a process of its own works on, here or elsewhere, goes on: it outlives a parent that was killed.
    """
    for run in client.search_runs([experiment_id], "attributes.status = 'RUNNING'"):
        if _is_abandoned(run):
            cause = "its process ended without closing it: killed, or cut off from the tracking server"
            _end(client, run, cause, "FAILED")
            for child in children(client, run):
                if child.info.status == "RUNNING" and PROCESS_TAG not in child.data.tags:
                    client.set_terminated(child.info.run_id, "FAILED")


def _is_abandoned(run: "Run") -> bool:
    """Whether a process of this machine worked on the run, and is no more."""
    import psutil

    host, pid, started = (run.data.tags.get(PROCESS_TAG, "").split() + ["", "", ""])[:3]
    if host != _machine() or not pid.isdecimal():
        return False
    try:
        return f"{psutil.Process(int(pid)).create_time():.0f}" != started
    except psutil.NoSuchProcess:
        return True


def _machine() -> str:
    """This machine, or container: names alone may be alike."""
    return f"{socket.gethostname()}/{uuid.getnode():x}"


def close_children(client: "MlflowClient", parent: "Run") -> "list[Run]":
    """End every child that is RUNNING, discard what failed ones logged; the children, the latest first."""
    found = children(client, parent)
    for child in found:
        if child.info.status == "RUNNING":
            client.set_terminated(child.info.run_id, "FAILED")
            close_children(client, child)  # an evaluation has runs of its own
        if child.info.status != "FINISHED" and REJECTED_TAG not in child.data.tags:
            discard_results(client, child)  # a killed one could not tidy up itself
    return found


def children(client: "MlflowClient", parent: "Run") -> "list[Run]":
    """The runs under a run, the latest first."""
    return client.search_runs(
        [parent.info.experiment_id],
        f"tags.`{PARENT_TAG}` = '{parent.info.run_id}'",
        order_by=["attributes.start_time DESC"],
    )


def discard_results(client: "MlflowClient", run: "Run") -> None:
    """Delete what a run that failed has logged, its logs excepted: artifacts, registered versions, logged models;
    a registered model too, if the run created it and it has no version.

    A store that deletes no artifacts, as Databricks', keeps the files; the run is FAILED, and no step reads those.
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
