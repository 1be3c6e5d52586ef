"""The Jobs API: submitted runs are executed in a folder of the stand-in, and can be followed and cancelled.

It follows https://docs.databricks.com/api/workspace/jobs (2.2 and, for MLflow's own backend, 2.0). A cluster is a
process with a home folder of its own and the environment of a cluster's driver. The absolute paths of a cluster,
/databricks, /dbfs and /Workspace, are folders of these names in the stand-in's folder.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.fakes.databricks.errors import ApiError
from tests.fakes.databricks.handler import TOKENS

if TYPE_CHECKING:
    from tests.fakes.databricks.workspace import Workspace

NODE_TYPES = ("i3.xlarge", "m6id.2xlarge", "r6id.2xlarge")
SPARK_VERSIONS = ("12.2.x-cpu-ml-scala2.12", "15.4.x-scala2.12", "16.4.x-scala2.12")
_USERS = ("HOME", "MLFLOW_", "DATABRICKS_", "HF_", "AWS_", "PHI_MLFLOW_")  # variables that a cluster does not have


@dataclass
class Job:
    """One submitted run."""

    run_id: int
    submitted: dict[str, Any]
    state: str = "PENDING"
    result: str | None = None
    message: str = "Waiting for cluster"
    code: str = ""  # the code of the termination
    output: str = ""
    process: "subprocess.Popen[str] | None" = None
    cancelled: bool = False


class Jobs:
    """All runs of the workspace, by ID.

    Attributes:
        dies_when: called with a job while it runs; the cluster dies when it returns True.
        secrets: scope/key -> value, for {{secrets/scope/key}} in a cluster's environment.
    """

    def __init__(self, workspace: "Workspace") -> None:
        self.workspace = workspace
        self.runs: dict[int, Job] = {}
        self.dies_when: Callable[[Job], bool] | None = None
        self.secrets: dict[str, str] = {}
        self._tokens: dict[str, int] = {}

    def routes(self) -> list[tuple[str, Callable[..., Any]]]:
        """Return a pattern of method and path, with the function that answers, for each call."""
        runs = r"/api/2\.[02]/jobs/runs"
        return [
            (f"POST {runs}/submit", self._submit),
            (f"GET {runs}/get", lambda q: self._describe(self._job(q))),
            (f"GET {runs}/get-output", self._output),
            (f"POST {runs}/cancel", self._cancel),
        ]

    def close(self) -> None:
        """Kill the processes that still run."""
        for job in self.runs.values():
            if job.process and job.process.poll() is None:
                os.killpg(job.process.pid, signal.SIGKILL)

    def wait(self, job: Job, timeout_s: float = 120) -> None:
        """Wait until the job has ended, or until the time is over."""
        deadline = time.monotonic() + timeout_s
        while job.result is None and time.monotonic() < deadline:
            time.sleep(0.2)

    def _submit(self, body: dict[str, Any]) -> dict[str, Any]:
        token = body.get("idempotency_token")
        if token in self._tokens:
            return {"run_id": self._tokens[token]}
        task = body["tasks"][0] if "tasks" in body else body
        self._check_cluster(task.get("new_cluster"), "new_cluster")
        job = Job(1000 + len(self.runs), body)
        self.runs[job.run_id] = job
        if token:
            self._tokens[token] = job.run_id
        threading.Thread(target=self._execute, args=(job, task), daemon=True).start()
        return {"run_id": job.run_id}

    def _check_cluster(self, cluster: dict[str, Any] | None, where: str) -> None:
        if not cluster:
            raise ApiError(400, "INVALID_PARAMETER_VALUE", f"Missing required field: {where}")
        if cluster.get("node_type_id") not in NODE_TYPES:
            message = f"Node type {cluster.get('node_type_id')} is not supported. Supported node types: "
            raise ApiError(400, "INVALID_PARAMETER_VALUE", message + ", ".join(NODE_TYPES))
        if cluster.get("spark_version") not in SPARK_VERSIONS:
            message = f"Invalid spark version {cluster.get('spark_version')}"
            raise ApiError(400, "INVALID_PARAMETER_VALUE", message)

    def _job(self, q: dict[str, Any]) -> Job:
        job = self.runs.get(int(q["run_id"]) // 10 if int(q["run_id"]) >= 10000 else int(q["run_id"]))
        if not job:
            raise ApiError(400, "INVALID_PARAMETER_VALUE", f"Run {q['run_id']} does not exist.")
        return job

    def _describe(self, job: Job) -> dict[str, Any]:
        state = {"life_cycle_state": job.state, "state_message": job.message}
        if job.result:
            state["result_state"] = job.result
        task = {"run_id": job.run_id * 10, "task_key": "main", "state": state}
        status: dict[str, Any] = {"state": "TERMINATED" if job.result else job.state}
        if job.result:
            status["termination_details"] = {
                "code": job.code or "SUCCESS",
                "type": "CLIENT_ERROR",
                "message": job.message,
            }
        return {
            "run_id": job.run_id,
            "job_id": job.run_id + 5000,
            "run_name": job.submitted.get("run_name", ""),
            "state": state,
            "status": status,
            "tasks": [task],
            "run_page_url": f"{self.workspace.url}/?o=1#job/{job.run_id + 5000}/run/{job.run_id}",
        }

    def _output(self, q: dict[str, Any]) -> dict[str, Any]:
        job = self._job(q)
        if int(q["run_id"]) == job.run_id and "tasks" in job.submitted:
            raise ApiError(400, "INVALID_PARAMETER_VALUE", "Retrieving the output of runs with tasks is not supported.")
        output: dict[str, Any] = {"metadata": self._describe(job), "logs": job.output[-5_000_000:]}
        if job.result == "FAILED" and not job.code:
            output["error"] = job.message
        return output

    def _cancel(self, q: dict[str, Any]) -> dict[str, Any]:
        job = self._job(q)
        job.cancelled = True
        if job.process and job.process.poll() is None:
            os.killpg(job.process.pid, signal.SIGKILL)
        return {}

    def _execute(self, job: Job, task: dict[str, Any]) -> None:
        try:
            time.sleep(0.3)  # the time in which a cluster starts
            command, folder = self._command(job, task)
            if job.cancelled:
                return self._end(job, "CANCELED", "Run cancelled.", "USER_CANCELED")
            job.state, job.message = "RUNNING", "In run"
            home = self.workspace.folder / "root"
            home.mkdir(exist_ok=True)
            job.process = subprocess.Popen(
                command,
                cwd=folder,
                env=self._environment(task, home),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
                start_new_session=True,
            )
            reader = threading.Thread(target=self._read, args=(job, job.process.stdout), daemon=True)
            reader.start()
            died = False
            while job.process.poll() is None:
                if self.dies_when and self.dies_when(job):
                    died = True
                    os.killpg(job.process.pid, signal.SIGKILL)
                time.sleep(0.1)
            reader.join(5)
            if died:
                message = "Cluster 1125-040404-abcdefgh was terminated during the run. Reason: DRIVER_UNREACHABLE"
                return self._end(job, "FAILED", message, "CLUSTER_ERROR", "INTERNAL_ERROR")
            if job.cancelled:
                return self._end(job, "CANCELED", "Run cancelled.", "USER_CANCELED")
            if job.process.returncode:
                message = f"Workload failed, see run output for details (exit code {job.process.returncode})"
                return self._end(job, "FAILED", message, "RUN_EXECUTION_ERROR")
            return self._end(job, "SUCCESS", "", "")
        except Exception as error:  # of the stand-in itself
            return self._end(job, "FAILED", f"{type(error).__name__}: {error}", "INTERNAL_ERROR", "INTERNAL_ERROR")

    def _end(self, job: Job, result: str, message: str, code: str, state: str = "TERMINATED") -> None:
        job.message, job.code, job.state, job.result = message, code, state, result

    def _read(self, job: Job, lines: Iterable[str]) -> None:
        for line in lines:
            job.output += line

    def _command(self, job: Job, task: dict[str, Any]) -> tuple[list[str], Path]:
        """Return the command that the cluster runs, and its folder. Paths of the cluster become the stand-in's."""
        if "shell_command_task" in task:
            command = task["shell_command_task"]["command"]
            parts = [re.sub(r"(?<![\w/.])/(databricks|dbfs)/", self._local_path, part) for part in command]
            return parts, self.workspace.folder
        python = task["spark_python_task"]
        if python.get("source") == "GIT":
            root = self._clone(job.submitted["git_source"], job.run_id)
            file = root / python["python_file"]
        else:
            file = self.workspace.path("Workspace", python["python_file"])
        if not file.is_file():
            raise FileNotFoundError(f"Cannot read the python file {python['python_file']}")
        return [sys.executable, str(file), *python.get("parameters", [])], file.parent

    def _local_path(self, match: "re.Match[str]") -> str:
        return f"{self.workspace.folder}/{match[1]}/"

    def _clone(self, source: dict[str, Any], run_id: int) -> Path:
        """Make what a job gets of a repository: its files, without .git."""
        target = self.workspace.folder / "repos" / str(run_id)
        ref = source.get("git_commit") or source.get("git_tag") or source["git_branch"]
        git = ["git", "-C", str(target)]
        target.mkdir(parents=True)
        for command in (
            ["init", "-q"],
            ["fetch", "-q", "--depth", "1", source["git_url"], ref],
            ["checkout", "-q", "FETCH_HEAD"],
        ):
            subprocess.run([*git, *command], check=True, capture_output=True, text=True)
        shutil.rmtree(target / ".git")
        return target

    def _environment(self, task: dict[str, Any], home: Path) -> dict[str, str]:
        driver = {key: value for key, value in os.environ.items() if not key.startswith(_USERS)}
        driver["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), driver["PATH"]])
        task_env = task.get("shell_command_task", {}).get("env_vars", {})
        variables = task["new_cluster"].get("spark_env_vars", {}) | task_env
        for key, value in variables.items():
            if secret := re.fullmatch(r"\{\{secrets/([^/]+/[^}]+)\}\}", value):
                variables[key] = self.secrets[secret[1]]
        return driver | {
            "HOME": str(home),
            "DATABRICKS_RUNTIME_VERSION": "15.4",
            "DATABRICKS_HOST": self.workspace.url,
            "DATABRICKS_TOKEN": TOKENS[1],
            **variables,
        }
