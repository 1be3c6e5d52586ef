"""A tracking server that goes away and comes back, and a network that is cut, while steps run."""

import dataclasses
import re
import time

import pytest

from tests.conftest import Project, checkout
from tests.fakes.servers import Cutting, free_port, serve

STEPS = "fetch_model,convert_onnx"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The server's: its database and artifacts outlive it."""
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def project(tmp_path_factory, folder) -> Project:
    """A checkout, and the address of a server that may or may not be there."""
    return Project(checkout(tmp_path_factory.mktemp("checkout")), f"http://127.0.0.1:{free_port()}", folder / "home")


@pytest.fixture
def server(project, folder):
    """Start the server, always at the same address."""
    (folder / "home").mkdir(exist_ok=True)
    port = int(project.uri.rpartition(":")[2])
    return lambda: serve(folder, "--artifacts-destination", str(folder / "store"), port=port)


def wait_for(project: Project, entry_point: str, process) -> None:
    """Until the step runs."""
    deadline = time.monotonic() + 120
    wanted = f"attributes.status = 'RUNNING' and tags.`mlflow.project.entryPoint` = '{entry_point}'"
    while not project.runs(wanted):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.2)


def converted(project: Project) -> str:
    """The ID of a convert_onnx run that finished."""
    done = "attributes.status = 'FINISHED' and tags.`mlflow.project.entryPoint` = 'convert_onnx'"
    return project.runs(done)[0].info.run_id


def test_a_server_that_restarts_in_the_middle_of_main_is_waited_for(project, server):
    with server():
        process = project.start("main", steps=STEPS)
        wait_for(project, "convert_onnx", process)
    time.sleep(2)
    with server():
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert {run.info.status for run in project.runs()} == {"FINISHED"}


def test_a_server_that_stays_away_is_one_line_and_a_rerun_goes_on_and_closes_what_was_left(project, server):
    retries = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1"}
    with server():
        process = project.start("main", retries, steps=STEPS, reuse="false")
        wait_for(project, "convert_onnx", process)
    _, err = process.communicate(timeout=300)
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


def test_an_upload_that_is_cut_is_made_again(project, server):
    with server():
        onnx = converted(project)
        way = Cutting(project.uri, after=1_000_000, times=2)
        result = dataclasses.replace(project, uri=way.url).run_module("wrap_custom", onnx_run=onnx)
        way.close()
        assert (result.code, way.cut) == (0, 2), result.err


def test_a_network_that_is_always_cut_is_one_line_and_nothing_is_left(project, server):
    retries = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1"}
    with server():
        onnx = converted(project)
        way = Cutting(project.uri, after=1_000_000, times=1000)
        elsewhere = dataclasses.replace(project, uri=way.url)
        result = elsewhere.run_module("wrap_custom", retries, onnx_run=onnx)
        way.close()
        assert result.code == 1
        (line,) = [line for line in result.error_lines() if line.startswith("wrap_custom: ")]
        assert "does not answer" in line, result.err
        run = project.latest("wrap_custom")
        assert run.info.status == "FAILED"
        assert project.client.search_logged_models(["0"], f"source_run_id = '{run.info.run_id}'") == []
