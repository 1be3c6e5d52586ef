"""The run of a step that another machine works on: made here, so that it is known and can be closed."""

from typing import TYPE_CHECKING

from steps.project.mlproject import entry_points
from steps.runs.cleanup import children, close_run
from steps.runs.step import Step, step_line
from steps.runs.tags import COMMIT_TAG, ENTRY_POINT_TAG, NAME_TAG, PARENT_TAG, PROCESS_TAG, SUMMARY_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


class RemoteRun:
    """A run of an entry point in the tracking store that the other machine uses.

    Attributes:
        uri: that store's address: this process's own where both can reach it, else the workspace's, `databricks`.
        run_id, experiment_id, entry_point: of the run.
    """

    def __init__(self, step: Step, entry_point: str, experiment: str, user: str) -> None:
        """
        Args:
            step: the open run of the step that submits; the run's parent where the store is the same.
            experiment: a name; empty for the step's own where the store is the same, else /Users/<user>/phi-mlflow.
            user: the workspace's user.
        """
        import mlflow

        self.entry_point = entry_point
        own = mlflow.get_tracking_uri()
        shared = own.startswith(("databricks", "http://", "https://"))
        self.uri = own if shared else "databricks"
        self.client: MlflowClient = step.client if shared else mlflow.MlflowClient(self.uri)
        if shared and not experiment:
            self.experiment_id = step.run.info.experiment_id
        else:
            self.experiment_id = _experiment(self.client, experiment or f"/Users/{user}/phi-mlflow")
        tags = {
            ENTRY_POINT_TAG: entry_point,
            NAME_TAG: entry_point,
            "mlflow.source.type": "PROJECT",
            "mlflow.source.name": step.run.data.tags.get("mlflow.source.name", "phi-mlflow"),
            "mlflow.user": user,
            "mlflow.project.backend": "databricks",
        }
        if shared:
            tags[PARENT_TAG] = step.run_id
        if commit := step.run.data.tags.get(COMMIT_TAG):
            tags[COMMIT_TAG] = commit
        self._run = self.client.create_run(self.experiment_id, tags=tags)
        self.run_id = self._run.info.run_id
        self._shown: set[str] = set()

    def log_parameters(self, parameters: dict[str, str]) -> None:
        """Log what the entry point was given, and its defaults, as MLflow does."""
        from mlflow.entities import Param

        values = entry_points()[self.entry_point] | parameters
        self.client.log_batch(self.run_id, params=[Param(name, value or "") for name, value in values.items()])

    def tag(self, **tags: str) -> None:
        """Set tags of the run."""
        for key, value in tags.items():
            self.client.set_tag(self.run_id, key, value)

    def hand_over(self) -> None:
        """From here on another machine works on it, and puts its own process there: the end of this one is no cause to
        close it."""
        self.tag(**{PROCESS_TAG: "databricks"})

    def state(self) -> "Run":
        """The run as it is now."""
        return self.client.get_run(self.run_id)

    def show_steps(self, step: Step) -> None:
        """A line for each child that has finished since the last time."""
        for child in reversed(children(self.client, self._run)):
            info, tags = child.info, child.data.tags
            if info.run_id not in self._shown and info.status == "FINISHED":
                self._shown.add(info.run_id)
                took = f"{(info.end_time - info.start_time) / 1000:.1f} s"
                step.console.line(step_line(tags[ENTRY_POINT_TAG], took, info.run_id, tags.get(SUMMARY_TAG, "")))

    def close(self, cause: str, killed: bool = False) -> None:
        """End the run, and its children, where the other machine could not; with the cause, if the run has none."""
        close_run(self.client, self.state(), cause, "KILLED" if killed else "FAILED")


def _experiment(client: "MlflowClient", name: str) -> str:
    found = client.get_experiment_by_name(name)
    return found.experiment_id if found else client.create_experiment(name)
