"""A step that a signal stops."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.checkout import ROOT, listen_to_signals

pytestmark = pytest.mark.e2e

SWALLOWING = """
import os, signal, sys
from steps.runs.entry_point import run_entry_point

def work(step, args):
    try:
        os.kill(os.getpid(), signal.{name})
    except BaseException:  # a finalizer or a library's bare except does this
        pass
    {then}

run_entry_point("test", work, lambda params: None)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """A folder with one tracking store for all tests, because making a store takes as long as a test."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # a store keeps artifacts in the folder in which it is first opened
        uri = f"sqlite:///{folder}/mlflow.db"
        MlflowClient(uri, uri).search_experiments()
    return folder


@pytest.mark.parametrize(
    "then", ["pass", "with step.console.phase('logging'): step.tag(logged='yes')", "raise ValueError('instead')"]
)
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_step_stops_even_if_something_swallows_or_replaces_the_interrupt(store: Path, name: str, then: str):
    uri = f"sqlite:///{store}/mlflow.db"
    before = len(MlflowClient(uri, uri).search_runs(["0"]))
    process = subprocess.run(
        [sys.executable, "-c", SWALLOWING.format(name=name, then=then), "--args="],
        cwd=store,
        env=os.environ | {"MLFLOW_TRACKING_URI": uri, "PYTHONPATH": f"{ROOT}:{os.environ['PYTHONPATH']}"},
        capture_output=True,
        text=True,
        timeout=600,
        preexec_fn=listen_to_signals,
    )
    assert (process.returncode, "test: interrupted" in process.stderr) == (130, True), process.stderr
    run, *others = MlflowClient(uri, uri).search_runs(["0"], order_by=["attributes.start_time DESC"])
    assert len(others) == before
    assert run.info.status == "KILLED"
    assert run.data.tags["error"] == "interrupted"
    assert "logged" not in run.data.tags
