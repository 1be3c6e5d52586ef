"""Wait for a step of a running main."""

import subprocess
import time

from tests.checkout import Project

_TIMEOUT = 600  # seconds


def wait_for_step(project: Project, entry_point: str, process: "subprocess.Popen[str]") -> str:
    """Wait until main runs a step, and return the ID of the step's run.

    Raises:
        AssertionError: main ended, or two minutes have passed; with main's output.
    """
    deadline = time.monotonic() + _TIMEOUT
    is_running = f"attributes.status = 'RUNNING' and tags.`mlflow.project.entryPoint` = '{entry_point}'"
    while time.monotonic() < deadline and process.poll() is None:
        if runs := project.runs(is_running):
            return runs[0].info.run_id
        time.sleep(0.1)
    raise AssertionError(process.communicate())
