"""Run the project as a user runs it: a checkout of it, a tracking store, and the command line."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests import warm_python

if TYPE_CHECKING:  # importing mlflow takes seconds, which tests without a store need not wait for
    from mlflow import MlflowClient
    from mlflow.entities import Run

ROOT = Path(__file__).parents[1]
TINY = ROOT / "params" / "tiny-phi3"
_TIMEOUT = 2400  # seconds that a command may take; only a hang takes longer


@dataclass(frozen=True)
class Result:
    """What a person sees of a command: its exit code, stdout and stderr."""

    code: int
    out: str
    err: str

    def error_lines(self) -> list[str]:
        """Return the lines of stderr, without empty lines and MLflow's own log lines."""
        lines = [line for line in self.err.splitlines() if line.strip()]
        return [line for line in lines if " INFO mlflow" not in line and " ERROR mlflow.cli" not in line]


def listen_to_signals() -> None:
    """Take signals as a process in a terminal does.

    A test run in the background of a script inherits SIGINT ignored, and its child processes inherit that too.
    """
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_DFL)


@contextlib.contextmanager
def tracking_store(uri: str) -> Iterator[None]:
    """Let MLflow's functions in this process use a store while a block runs.

    The variable MLFLOW_TRACKING_URI alone would not do: MLflow's tracer keeps the first store that it met.
    """
    import mlflow

    mlflow.set_tracking_uri(uri)  # this sets the variable too, which later tests and their processes would inherit
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # None resets the address, though the annotation has no None


@dataclass(frozen=True)
class Project:
    """A checkout of the project and the tracking store that it runs against."""

    root: Path  # the checkout
    uri: str  # of the tracking store
    home: Path  # the folder in which the user stands

    @property
    def client(self) -> "MlflowClient":
        """Return MLflow's client of the store."""
        from mlflow import MlflowClient

        return MlflowClient(self.uri, self.uri)

    def in_this_process(self) -> contextlib.AbstractContextManager[None]:
        """Let MLflow's functions in this process use the store while a block runs."""
        return tracking_store(self.uri)

    def _env(self, more: dict[str, str] | None) -> dict[str, str]:
        own = {"MLFLOW_TRACKING_URI": self.uri, "HF_HOME": str(self.home / "hf")}
        return os.environ | own | (more or {})

    def run_module(self, entry_point: str, env: dict[str, str] | None = None, **params: str) -> Result:
        """Run the command of an entry point without `mlflow run` around it, which would take two seconds more."""
        arguments = [f"steps.{entry_point}", *(f"--{key}={value}" for key, value in params.items())]
        path = os.pathsep.join([str(self.root), os.environ["PYTHONPATH"]])
        return Result(*warm_python.run(arguments, self.home, self._env({"PYTHONPATH": path} | (env or {})), _TIMEOUT))

    def start(self, entry_point: str, env: dict[str, str] | None = None, **params: str) -> subprocess.Popen[str]:
        """Start `mlflow run` as a user does, in the environment of the tests, in a process group of its own."""
        command = [sys.executable, "-m", "mlflow", "run", str(self.root), "-e", entry_point, "--env-manager", "local"]
        return subprocess.Popen(
            [*command, *(part for key, value in params.items() for part in ("-P", f"{key}={value}"))],
            cwd=self.home,
            env=self._env(env),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            preexec_fn=listen_to_signals,
        )

    def run(self, entry_point: str, env: dict[str, str] | None = None, **params: str) -> Result:
        """Start `mlflow run`, and wait for it."""
        process = self.start(entry_point, env, **params)
        out, err = process.communicate(timeout=_TIMEOUT)
        return Result(process.returncode, out, err)

    def runs(self, filter_string: str = "") -> "list[Run]":
        """Return the runs of the default experiment, the latest first."""
        return self.client.search_runs(["0"], filter_string, order_by=["attributes.start_time DESC"])

    def latest(self, entry_point: str) -> "Run":
        """Return the latest run of an entry point."""
        return self.runs(f"tags.`mlflow.project.entryPoint` = '{entry_point}'")[0]


def assert_refused(project: Project, result: Result, *parts: str) -> None:
    """Check that a command failed with one line that has all the parts, and that no run is left open."""
    lines = result.error_lines()
    assert result.code != 0
    assert len(lines) == 1, result.err
    for part in parts:
        assert part in lines[0]
    assert project.runs("attributes.status = 'RUNNING'") == []


def checkout(target: Path) -> Path:
    """Make a git repository of the project as it stands, uncommitted changes included. Return its folder."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    git(target, "init", "-q", "-b", "main")
    git(target, "add", "-A")
    git(target, "commit", "-qm", "As it stands")
    return target


def git(folder: Path, *arguments: str) -> str:
    """Run a git command in a folder. Return its output."""
    command = ["git", "-c", "user.name=tests", "-c", "user.email=tests@localhost", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()
