"""Ctrl-C, signals and killed processes: no run stays open, and finished steps are reused."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.checkout import Project
from tests.faults.waiting import wait_for_step

pytestmark = pytest.mark.e2e


def process_ids(project: Project, module: str) -> list[int]:
    """Return the processes that run `python -m MODULE` of this checkout. Other checkouts have such processes too."""
    ids = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")
            is_here = (entry / "cwd").resolve(strict=True) == project.root
        except OSError:  # the process has ended
            continue
        if is_here and module.encode() in command and b"python" in command[0]:
            ids.append(int(entry.name))
    return ids


def interrupt(project: Project, process: "subprocess.Popen[str]", how: str) -> None:
    """Stop a running main, whose step convert_onnx is at work."""
    if how == "Ctrl-C":
        os.killpg(process.pid, signal.SIGINT)
    elif how == "SIGTERM to main":
        (main,) = process_ids(project, "steps.main")
        os.kill(main, signal.SIGTERM)
    else:
        (step,) = process_ids(project, "steps.convert_onnx")
        os.kill(step, signal.SIGKILL)


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM to main", "kill -9 of the step"])
def test_an_interrupted_main_leaves_no_run_open_and_its_finished_steps_are_reused(local, fetched, how):
    process = local.start("main")
    child = wait_for_step(local, "convert_onnx", process)
    time.sleep(2)  # the step is in the middle of its work
    interrupt(local, process, how)
    _, err = process.communicate(timeout=300)
    assert process.returncode != 0
    assert local.runs("attributes.status = 'RUNNING'") == []
    assert process_ids(local, "steps.convert_onnx") == process_ids(local, "steps.main") == []
    assert local.client.get_run(child).info.status in ("FAILED", "KILLED")
    assert [file.path for file in local.client.list_artifacts(child) if file.path != "logs"] == []
    if how == "kill -9 of the step":
        assert f"main: convert_onnx failed (run {child}): its process ended without an error message" in err, err
    else:
        assert "main: interrupted" in err
        assert "Traceback" not in err.split("main: interrupted")[0]
    again = local.run_module("main", steps="fetch_model")
    assert again.code == 0
    assert re.match(r"fetch_model +reused", again.out)


@pytest.fixture
def abandoned(local, fetched) -> tuple[str, str]:
    """Two open runs, parent and child, of a process of this machine that has ended."""
    machine = local.client.get_run(fetched).data.tags["process"].split()[0]
    parent = local.client.create_run("0", tags={"process": f"{machine} 999999999 1"}).info.run_id
    child = local.client.create_run("0", tags={"mlflow.parentRunId": parent}).info.run_id
    return parent, child


def test_the_next_step_closes_runs_that_an_ended_process_left_open(local, abandoned):
    parent, child = abandoned
    assert local.run_module("fetch_model", source="params/tiny-phi3").code == 0
    closed = local.client.get_run(parent)
    assert closed.info.status == "FAILED"
    assert "its process ended" in closed.data.tags["error"]
    assert local.client.get_run(child).info.status == "FAILED"


def test_the_next_step_leaves_runs_open_that_are_still_at_work(local, fetched, abandoned):
    """A step with a process of its own, a step on Databricks, and a run of another machine."""
    machine = local.client.get_run(fetched).data.tags["process"].split()[0]
    child, this = {"mlflow.parentRunId": abandoned[0]}, psutil.Process()
    at_work = [
        local.client.create_run("0", tags=tags).info.run_id
        for tags in (
            child | {"process": f"{machine} {this.pid} {this.create_time():.0f}"},
            child | {"process": "databricks"},
            {"process": "another/0 999999999 1"},
        )
    ]
    try:
        assert local.run_module("fetch_model", source="params/tiny-phi3").code == 0
        assert [local.client.get_run(run_id).info.status for run_id in at_work] == ["RUNNING"] * 3
    finally:
        for run_id in at_work:
            local.client.set_terminated(run_id)
