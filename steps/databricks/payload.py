"""The body of a job submission: jobs/runs/submit of the Jobs API 2.2.

https://docs.databricks.com/api/workspace/jobs/submit
"""

from dataclasses import dataclass
from typing import Any

from steps.databricks.options import Options

LAUNCHER = "steps/databricks/launch.py"


@dataclass(frozen=True)
class RunAddress:
    """Where the run of the entry point is: the job works in it."""

    tracking_uri: str
    registry_uri: str
    """Empty for MLflow's own choice, which depends on the tracking URI."""
    experiment_id: str
    run_id: str


def payload(options: Options, run: RunAddress, packages: list[str], folder: str) -> dict[str, Any]:
    """Return the body of jobs/runs/submit.

    Args:
        run: the run of the entry point.
        packages: pip requirements that the cluster needs besides those in the cluster file.
        folder: the project's folder in the workspace; not used if the job takes the project from git.
    """
    cluster = options.cluster
    in_file = {library["pypi"]["package"].partition("==")[0] for library in cluster.libraries if "pypi" in library}
    libraries = [{"pypi": {"package": line}} for line in packages if line.partition("==")[0] not in in_file]
    task = {
        "task_key": "phi_mlflow",
        "spark_python_task": {
            "python_file": LAUNCHER if options.git else f"{folder}/{LAUNCHER}",
            "source": "GIT" if options.git else "WORKSPACE",
            "parameters": _arguments(options, run),
        },
        **cluster.spec,
        "libraries": [*cluster.libraries, *libraries],
    }
    body: dict[str, Any] = {
        "run_name": f"phi-mlflow {options.entry_point}",
        "tasks": [task],
        "idempotency_token": run.run_id,  # if the answer is lost, the second submission makes no second job
    }
    if options.git:
        body["git_source"] = options.git
    if options.timeout_s:
        body["timeout_seconds"] = options.timeout_s
    return body


def _arguments(options: Options, run: RunAddress) -> list[str]:
    """Return the command line of launch.py. Empty values are left out."""
    values = {
        "--entry-point": options.entry_point,
        "--tracking-uri": run.tracking_uri,
        "--registry-uri": run.registry_uri,
        "--experiment-id": run.experiment_id,
        "--run-id": run.run_id,
        "--env-manager": options.env_manager,
        "--uc-schema": options.uc_schema,
    }
    parameters = [part for name, value in options.parameters.items() for part in ("-P", f"{name}={value}")]
    return [f"{name}={value}" for name, value in values.items() if value] + parameters
