"""The run of an entry point that another machine works on. This process creates the run, so that it can close it."""

import os
from typing import TYPE_CHECKING

from steps.common.errors import Rejected, StepError
from steps.project.mlproject import entry_points
from steps.runs.cleanup import children, close_run
from steps.runs.console import Console, step_line
from steps.runs.redaction import redact
from steps.runs.tags import (
    COMMIT_TAG,
    ENTRY_POINT_TAG,
    ERROR_TAG,
    NAME_TAG,
    PARENT_TAG,
    PROCESS_TAG,
    REJECTED_TAG,
    SUMMARY_TAG,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


class RemoteRun:
    """A run of an entry point, in the tracking store that the other machine uses.

    Attributes:
        uri: the tracking store: this process's own if both machines can reach it, else the workspace's (`databricks`).
        entry_point, experiment_id, run_id: of the run.
    """

    def __init__(self, parent: "Run", entry_point: str, experiment: str, user: str) -> None:
        """Create the run.

        Args:
            parent: the open run of the step that submits. The new run is its child if both are in the same store.
            experiment: a name. If empty: the parent's experiment in the same store, else /Users/<user>/phi-mlflow.
            user: the user's name in the workspace.
        """
        import mlflow

        self.entry_point = entry_point
        local_uri = mlflow.get_tracking_uri()
        shared = local_uri.startswith(("databricks", "http://", "https://"))
        self.uri = local_uri if shared else "databricks"
        self._client: MlflowClient = mlflow.MlflowClient() if shared else mlflow.MlflowClient(self.uri)
        if shared and not experiment:
            self.experiment_id: str = parent.info.experiment_id
        else:
            self.experiment_id = _experiment(self._client, experiment or f"/Users/{user}/phi-mlflow")
        tags = {
            ENTRY_POINT_TAG: entry_point,
            NAME_TAG: entry_point,
            "mlflow.source.type": "PROJECT",
            "mlflow.source.name": parent.data.tags.get("mlflow.source.name", "phi-mlflow"),
            "mlflow.user": user,
            "mlflow.project.backend": "databricks",
        }
        if shared:
            tags[PARENT_TAG] = parent.info.run_id
        if commit := parent.data.tags.get(COMMIT_TAG):
            tags[COMMIT_TAG] = commit
        self._run = self._client.create_run(self.experiment_id, tags=tags)
        self.run_id: str = self._run.info.run_id
        self._shown: set[str] = set()

    def log_parameters(self, parameters: dict[str, str]) -> None:
        """Log the parameters of the entry point, with defaults, as `mlflow run` does."""
        from mlflow.entities import Param

        values = entry_points()[self.entry_point] | parameters
        self._client.log_batch(self.run_id, params=[Param(name, value or "") for name, value in values.items()])

    def tag(self, **tags: str) -> None:
        """Set tags of the run."""
        for key, value in tags.items():
            self._client.set_tag(self.run_id, key, value)

    def hand_over(self) -> None:
        """Mark the run as the other machine's, so that the end of this process is no reason to close it."""
        self.tag(**{PROCESS_TAG: "databricks"})

    def show_steps(self, console: Console) -> None:
        """Print a line for each child run that has finished since the last call."""
        for child in reversed(children(self._client, self._run)):
            info, tags = child.info, child.data.tags
            if info.run_id not in self._shown and info.status == "FINISHED":
                self._shown.add(info.run_id)
                console.line(step_line(tags[ENTRY_POINT_TAG], _duration(child), info.run_id, tags.get(SUMMARY_TAG, "")))

    def close(self, cause: str, killed: bool = False) -> None:
        """End the run and its children if the other machine did not; record the cause if the run has none."""
        close_run(self._client, self._client.get_run(self.run_id), cause, "KILLED" if killed else "FAILED")

    def finish(self, console: Console, job: str) -> str:
        """Print the line of the run, which has ended, and return its summary.

        Args:
            job: what the other machine says about its work, for errors.

        Raises:
            StepError: the run failed.
            Rejected: the run failed by its verdict.
        """
        run = self._client.get_run(self.run_id)
        tags = run.data.tags
        if run.info.status != "FINISHED":
            error_class = Rejected if REJECTED_TAG in tags else StepError
            cause = tags.get(ERROR_TAG, "see job/output.txt")
            raise error_class(f"{self.entry_point} failed on Databricks (run {self.run_id}, {job}): {cause}")
        summary = tags.get(SUMMARY_TAG, "")
        console.line(step_line(self.entry_point, _duration(run), self.run_id, summary))
        return summary


def check_tracking_uri() -> None:
    """Raise StepError if the tracking URI has credentials in it. The other machine gets the URI in plain text."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if redact(uri) != uri:
        raise StepError(
            f"MLFLOW_TRACKING_URI is {redact(uri)}; expected no credentials in it: give them as "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, here and in the cluster's spark_env_vars"
        )


def _duration(run: "Run") -> str:
    """Return how long an ended run took, for a step's line."""
    return f"{(run.info.end_time - run.info.start_time) / 1000:.1f} s"


def _experiment(client: "MlflowClient", name: str) -> str:
    """Return the ID of the experiment, created if it does not exist."""
    experiment = client.get_experiment_by_name(name)
    return experiment.experiment_id if experiment else client.create_experiment(name)
