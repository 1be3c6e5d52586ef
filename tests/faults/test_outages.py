"""A tracking server that goes away and comes back, and a network that is cut, while steps run."""

import dataclasses
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.checkout import Project, checkout
from tests.fakes.servers import free_port, tracking_server
from tests.fakes.unreliable_network import UnreliableNetwork
from tests.faults.waiting import wait_for_step

pytestmark = pytest.mark.e2e

STEPS = "fetch_model,convert_onnx"
FEW_RETRIES = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The folder of the server's database and artifacts, which outlive the server."""
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def project(tmp_path_factory, folder) -> Project:
    """A checkout, and the address of a server that is not always running."""
    return Project(checkout(tmp_path_factory.mktemp("checkout")), f"http://127.0.0.1:{free_port()}", folder / "home")


@pytest.fixture
def server(project, folder) -> Callable[[], AbstractContextManager[str]]:
    """server(): run the server at its address, as a context manager."""
    (folder / "home").mkdir(exist_ok=True)
    port = int(project.uri.rpartition(":")[2])
    return lambda: tracking_server(folder, "--artifacts-destination", str(folder / "store"), port=port)


def finished_conversion(project: Project) -> str:
    """Return the ID of a convert_onnx run that finished."""
    is_finished = "attributes.status = 'FINISHED' and tags.`mlflow.project.entryPoint` = 'convert_onnx'"
    return project.runs(is_finished)[0].info.run_id


def test_main_waits_for_a_server_that_restarts(project, server):
    with server():
        process = project.start("main", steps=STEPS)
        wait_for_step(project, "convert_onnx", process)
    time.sleep(2)
    with server():
        _, err = process.communicate(timeout=1200)
        assert process.returncode == 0, err
        assert {run.info.status for run in project.runs()} == {"FINISHED"}


def test_a_server_that_stays_away_is_one_line_and_the_next_main_goes_on_and_closes_the_open_runs(project, server):
    with server():
        process = project.start("main", FEW_RETRIES, steps=STEPS, reuse="false")
        wait_for_step(project, "convert_onnx", process)
    _, err = process.communicate(timeout=1200)
    assert process.returncode != 0
    (line,) = [line for line in err.splitlines() if line.startswith("main: ")]
    assert f"the tracking server {project.uri} does not answer" in line
    assert "run again when it answers" in line and "the next run on this machine closes this one" in line
    with server():
        assert [run.info.status for run in project.runs("attributes.status = 'RUNNING'")], "nobody could close them"
        result = project.run_module("main", steps=STEPS)
        assert result.code == 0, result.err
        assert re.match(r"fetch_model +reused", result.out)
        assert project.runs("attributes.status = 'RUNNING'") == []


def test_an_upload_that_is_cut_is_sent_again(project, server):
    with server():
        onnx = finished_conversion(project)
        network = UnreliableNetwork(project.uri, after=1_000_000, times=2)
        result = dataclasses.replace(project, uri=network.url).run_module("wrap_custom", onnx_run=onnx)
        network.close()
        assert (result.code, network.cuts) == (0, 2), result.err


def test_a_network_that_is_always_cut_is_one_line_and_no_model_is_left(project, server):
    with server():
        onnx = finished_conversion(project)
        network = UnreliableNetwork(project.uri, after=1_000_000, times=1000)
        behind_it = dataclasses.replace(project, uri=network.url)
        result = behind_it.run_module("wrap_custom", FEW_RETRIES, onnx_run=onnx)
        network.close()
        assert result.code == 1
        (line,) = [line for line in result.error_lines() if line.startswith("wrap_custom: ")]
        assert "does not answer" in line, result.err
        run = project.latest("wrap_custom")
        assert run.info.status == "FAILED"
        assert project.client.search_logged_models(["0"], f"source_run_id = '{run.info.run_id}'") == []
