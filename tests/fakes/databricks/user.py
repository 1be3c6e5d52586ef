"""Somebody who works with the workspace from a checkout of the project: commands, and the environment they run in."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.checkout import Result, checkout, listen_to_signals
from tests.fakes.databricks.handler import TOKENS
from tests.fakes.databricks.unity_catalog import USER
from tests.fakes.databricks.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = f"/Users/{USER}/phi-mlflow"


@dataclass(frozen=True)
class Submitter:
    """A user with a checkout, a home folder and a workspace."""

    root: Path  # the checkout
    workspace: Workspace
    home: Path

    def profile(self, **settings: int) -> dict[str, str]:
        """Write a profile into ~/.databrickscfg, with settings of the SDK; return the environment that names it."""
        lines = {"host": self.workspace.url, "token": TOKENS[0], **settings}
        text = "".join(f"{key} = {value}\n" for key, value in lines.items())
        (self.home / ".databrickscfg").write_text("[phi]\n" + text)
        return {"DATABRICKS_CONFIG_PROFILE": "phi", "MLFLOW_TRACKING_URI": "databricks"}

    def start(self, **params: str) -> "subprocess.Popen[str]":
        """Start `mlflow run` of submit_databricks."""
        return self._start([*self._mlflow_run(params), "-e", "submit_databricks"])

    def start_backend(self, root: Path, config: Path, **params: str) -> "subprocess.Popen[str]":
        """Start `mlflow run` of `main` with MLflow's own `databricks` backend, from another checkout."""
        backend = ("-b", "databricks", "--backend-config", str(config))
        return self._start([*self._mlflow_run(params, root), *backend])

    def submit(self, env: dict[str, str] | None = None, /, **params: str) -> Result:
        """Run submit_databricks without `mlflow run` around it, which would take two seconds more, and wait.

        Args:
            env: the environment that leads to the workspace; by default its address and a token.
        """
        command = [sys.executable, "-m", "steps.submit_databricks"]
        command += [f"--{key}={value}" for key, value in params.items()]
        path = {"PYTHONPATH": os.pathsep.join([str(self.root), os.environ["PYTHONPATH"]])}
        return finish(self._start(command, (env or self.workspace.environment()) | path))

    def _mlflow_run(self, params: dict[str, str], root: Path | None = None) -> list[str]:
        command = [sys.executable, "-m", "mlflow", "run", str(root or self.root), "--env-manager", "local"]
        return command + [part for key, value in params.items() for part in ("-P", f"{key}={value}")]

    def _start(self, command: list[str], env: dict[str, str] | None = None) -> "subprocess.Popen[str]":
        settings = {"HOME": str(self.home), "MLFLOW_EXPERIMENT_NAME": EXPERIMENT}
        return subprocess.Popen(
            command,
            cwd=self.home,
            env=os.environ | (env or self.workspace.environment()) | settings,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=listen_to_signals,
        )


def checkout_with_few_questions(folder: Path) -> Path:
    """Return a checkout with the profile `few`, whose evaluation asks little.

    Each request to the stand-in goes twice over HTTP, so the questions of the profile `tiny` would take long.
    """
    root = checkout(folder)
    questions = (root / "params/evalsets/tiny-qa.jsonl").read_text().splitlines()[:4]
    (root / "params/evalsets/few.jsonl").write_text("\n".join(questions) + "\n")
    profile = (root / "params/tiny.yaml").read_text()
    profile = profile.replace("evalset: params/evalsets/tiny-qa", "evalset: params/evalsets/few")
    (root / "params/few.yaml").write_text(profile)
    return root


def finish(process: "subprocess.Popen[str]") -> Result:
    """Wait for a command to end."""
    out, err = process.communicate(timeout=2400)
    return Result(process.returncode, out, err)


def said(result: Result) -> list[str]:
    """Return what submit_databricks wrote to stderr."""
    return [line for line in result.error_lines() if line.startswith("submit_databricks: ")]


def runs(client: "MlflowClient", filter_string: str = "") -> "list[Run]":
    """Return the runs of all experiments, the latest first."""
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    return client.search_runs(ids, filter_string, order_by=["attributes.start_time DESC"])


def runs_of(client: "MlflowClient", entry_point: str) -> "list[Run]":
    """Return the runs of an entry point, the latest first."""
    return runs(client, f"tags.`mlflow.project.entryPoint` = '{entry_point}'")
