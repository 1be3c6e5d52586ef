"""What the first `main` left behind: its run, its child runs, and what their pages and artifacts say."""

from collections.abc import Iterator

import mlflow
import pytest
from mlflow.entities import Run

from steps.evaluation.results import Evaluation
from tests.checkout import Project, Result


@pytest.fixture(scope="module", autouse=True)
def tracking_uri_of_this_process(project: Project) -> Iterator[None]:
    """Let MLflow's functions in this process use the project's tracking server."""
    with project.in_this_process():
        yield


@pytest.fixture(scope="session")
def parent(project: Project, cold: Result) -> Run:
    """The run of the first main."""
    return project.runs("tags.`mlflow.project.entryPoint` = 'main'")[-1]


@pytest.fixture(scope="session")
def children(project: Project, parent: Run) -> dict[str, Run]:
    """Entry point -> its run under the first main."""
    runs = project.runs(f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    return {run.data.tags["mlflow.project.entryPoint"]: run for run in runs}


@pytest.fixture(scope="module")
def evaluation(children: dict[str, Run]) -> Evaluation:
    """evaluation.json of the first main."""
    text = mlflow.artifacts.load_text(f"{children['evaluate'].info.artifact_uri}/evaluation.json")
    return Evaluation.parse(text, "evaluation.json")
