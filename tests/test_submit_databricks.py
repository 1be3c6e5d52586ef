"""submit_databricks, from the real client libraries to a stand-in on loopback that executes what is submitted."""

import json
import os
import re
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from steps.databricks.files import project_files
from steps.registry.aliases import has_aliases
from steps.registry.versions import versions_by_model
from tests.checkout import ROOT, Project, Result
from tests.fakes.databricks.handler import TOKENS
from tests.fakes.databricks.unity_catalog import USER
from tests.fakes.databricks.user import EXPERIMENT, Submitter, checkout_with_few_questions, finish, runs, runs_of, said
from tests.fakes.databricks.workspace import Fault, Workspace
from tests.fakes.git_server import GitServer
from tests.fakes.servers import tracking_server

if TYPE_CHECKING:
    from mlflow import MlflowClient

pytestmark = pytest.mark.e2e

CLUSTER = "params/databricks/cluster.json"
ON_DRIVER = {"env_manager": "local", "uc_schema": "main.default"}  # the stand-in's cluster has the packages


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return checkout_with_few_questions(tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[str]:
    """An mlflow server that names its artifacts as Databricks does, so that the client fetches them there."""
    folder = tmp_path_factory.mktemp("tracking")
    artifacts = ("--no-serve-artifacts", "--default-artifact-root", "dbfs:/databricks/mlflow-tracking")
    with tracking_server(folder, *artifacts) as url:
        yield url


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, server) -> Iterator[Workspace]:
    workspace = Workspace(tmp_path_factory.mktemp("workspace"), server)
    yield workspace
    workspace.close()


@pytest.fixture
def user(root, workspace, tmp_path) -> Submitter:
    """A user with an empty home folder; the workspace has no faults left from an earlier test."""
    workspace.faults.clear()
    workspace.jobs.dies_when = None
    return Submitter(root, workspace, tmp_path)


@pytest.fixture(scope="module")
def client(server) -> "MlflowClient":
    """The tracking store, without the workspace before it."""
    from mlflow import MlflowClient

    return MlflowClient(server, server)


def assert_failed(client: "MlflowClient", result: Result, *parts: str) -> None:
    """Check that a submission failed with one line that has all the parts, and that no run is left open."""
    assert result.code != 0
    (line,) = said(result)
    for part in parts:
        assert part in line
    assert runs(client, "attributes.status = 'RUNNING'") == []


@pytest.fixture(scope="module")
def submitted(root, workspace, tmp_path_factory) -> Result:
    """The whole of main, submitted from the local folder, while the workspace is slow and fails now and then."""
    workspace.faults += [
        Fault(r"POST /api/2\.2/jobs/runs/submit", "late"),  # accepted, but the answer is lost
        Fault(r"POST /api/2\.0/workspace/import", 429, 2, {"Retry-After": "1"}),
        Fault(r"POST /api/2\.0/workspace/import", 500, 2),
        Fault(r"POST /api/2\.0/workspace/import", "cut", 1),
        Fault(r"GET /api/2\.2/jobs/runs/get$", 503, 1, {"Retry-After": "1"}),
        Fault(r"GET /api/2\.2/jobs/runs/get$", 500, 2),
        Fault(r"GET /api/2\.2/jobs/runs/get$", 3.0, 1),
    ]
    user = Submitter(root, workspace, tmp_path_factory.mktemp("submitter"))
    result = finish(user.start(params="profile=few", **ON_DRIVER))
    assert result.code == 0, result.err
    return result


def test_main_runs_there_to_the_end_and_is_followed(submitted, client, workspace):
    lines = [line for line in submitted.out.splitlines() if not line.startswith(("🏃", "🧪"))]
    assert re.match(r"job run \d+  http://", lines[0])
    assert [line.split()[0] for line in lines[1:]][-3:] == ["TERMINATED", "main", "submit_databricks"]
    for name in ("fetch_model", "convert_onnx", "wrap_transformer", "wrap_custom", "evaluate"):
        assert re.search(rf"^{name} +\d+\.\d s  [0-9a-f]{{32}}", submitted.out, re.MULTILINE), submitted.out
    assert "champion: onnx-genai-int4" in lines[-2]
    assert len(workspace.jobs.runs) == 1, "the submission whose answer was lost made a second job"
    (main,) = runs_of(client, "main")
    (submission,) = runs_of(client, "submit_databricks")
    assert main.info.status == submission.info.status == "FINISHED"
    assert main.data.tags["mlflow.parentRunId"] == submission.info.run_id
    assert main.data.params["profile"] == "few"
    assert main.data.tags["mlflow.databricks.runURL"] == submission.data.tags["mlflow.databricks.runURL"]
    assert submission.data.tags["remote_run"] == main.info.run_id
    artifacts = workspace.folder / f"files/WorkspaceInternal/Mlflow/Artifacts/{submission.info.experiment_id}/Runs"
    output = (artifacts / submission.info.run_id / "artifacts/job/output.txt").read_text()
    assert re.search(r"^model +accuracy", output, re.MULTILINE)


def test_the_models_are_in_unity_catalog_under_three_levels(submitted, workspace):
    catalog = workspace.catalog
    assert list(catalog.models) == ["main.default.tiny-phi3"]
    aliases = {alias["alias"]: alias["version"] for alias in catalog.models["main.default.tiny-phi3"]["aliases"]}
    assert aliases == {"champion": "2", "challenger": "1"}
    version = catalog.versions["main.default.tiny-phi3", "2"]
    assert version["status"] == "READY"
    assert {tag["key"]: tag["value"] for tag in version["tags"]}["gates"] == "passed"
    assert (workspace.folder / "files/Models/main/default/tiny-phi3/2/MLmodel").is_file()


def test_the_project_is_uploaded_and_nothing_beside_it(submitted, root, workspace):
    (folder,) = (workspace.folder / "Workspace/Users" / USER / ".phi-mlflow").iterdir()
    names = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    assert names - {"uploaded"} == set(project_files(root))
    assert {name.split("/")[0] for name in names} == {
        "MLproject", "README.md", "conda.yaml", "params", "steps", "tests", "uploaded",
    }  # fmt: skip


def test_a_cluster_that_dies_closes_every_run_and_a_rerun_goes_on(submitted, user, client, workspace):
    def fetch_model_is_running(_) -> bool:
        return any(run.info.status == "RUNNING" for run in runs_of(client, "fetch_model"))

    workspace.jobs.dies_when = fetch_model_is_running
    result = user.submit(params="profile=few steps=fetch_model reuse=false", **ON_DRIVER)
    assert_failed(client, result, "CLUSTER_ERROR", "DRIVER_UNREACHABLE", "main failed on Databricks")
    workspace.jobs.dies_when = None
    before = len([request for request in workspace.requests if "workspace/import" in request])
    result = user.submit(params="profile=few", **ON_DRIVER)
    assert result.code == 0, result.err
    assert len([request for request in workspace.requests if "workspace/import" in request]) == before
    assert "fetch_model" not in result.out
    (latest,) = list(workspace.jobs.runs.values())[-1:]
    assert len(re.findall(r"^\w+ +reused  ", latest.output, re.MULTILINE)) == 5


@pytest.mark.skipif(not shutil.which("rsync"), reason="rsync is not installed: apt-get install rsync, and run again")
def test_mlflows_own_backend_runs_the_tarball_to_the_end(submitted, user, client, workspace, tmp_path_factory):
    """As params/databricks/README.md shows it: from a work tree of the commit, which holds nothing but the project."""
    folder = tmp_path_factory.mktemp("work")
    tree = folder / "tree"
    subprocess.run(["git", "worktree", "add", "-q", "--detach", str(tree)], cwd=user.root, check=True)
    spec = json.loads((ROOT / CLUSTER).read_text())
    spec["new_cluster"]["spark_env_vars"] = {"PHI_MLFLOW_UC_SCHEMA": "main.default"}
    config = folder / "cluster.json"
    config.write_text(json.dumps(spec))
    result = finish(user.start_backend(tree, config, steps="fetch_model"))
    assert result.code == 0, result.err
    job = list(workspace.jobs.runs.values())[-1]
    workspace.jobs.wait(job)  # MLflow only submits
    assert job.result == "SUCCESS", job.output
    assert job.submitted["new_cluster"] == spec["new_cluster"]
    assert "mlflow run" in job.submitted["shell_command_task"]["command"][-1]
    assert re.search(r"^main +\d+\.\d s", job.output, re.MULTILINE), job.output
    latest = runs_of(client, "main")[0]
    assert (latest.info.status, latest.data.params["steps"]) == ("FINISHED", "fetch_model")
    (tarball,) = (workspace.folder / "dbfs/mlflow-experiments").rglob("*.tar.gz")
    assert tarball.stat().st_size < 6_000_000
    with tarfile.open(tarball) as tar:
        files = {member.name.partition("/")[2] for member in tar.getmembers() if member.isfile()}
    listed = subprocess.run(["git", "ls-files"], cwd=tree, check=True, capture_output=True, text=True).stdout
    assert files == {*listed.split("\n"), ".git"} - {""}


def test_a_workspace_that_stays_out_of_reach_is_one_line_and_the_job_goes_on(submitted, user, client, workspace):
    workspace.faults.append(Fault(r"GET /api/2\.2/jobs/runs/get$", 500, 1000))
    result = user.submit(user.profile(retry_timeout_seconds=4), params="profile=few steps=fetch_model", **ON_DRIVER)
    job = list(workspace.jobs.runs.values())[-1]
    assert result.code != 0
    lines = said(result)
    assert f"job run {job.run_id} may go on; see it in the workspace" in lines[0], result.err
    assert re.search(r"the workspace \S+ has failed for \d s .*: run again when it answers", lines[-1])
    workspace.jobs.wait(job)
    assert job.result == "SUCCESS", job.output
    main, submission = runs(client)[:2]
    assert main.data.tags["mlflow.parentRunId"] == submission.info.run_id
    assert (main.info.status, submission.info.status) == ("FINISHED", "FAILED")


def test_ctrl_c_cancels_the_job(submitted, user, client, workspace):
    before = len(workspace.jobs.runs)
    process = user.start(params="profile=few reuse=false", **ON_DRIVER)
    deadline = time.monotonic() + 300
    while len(workspace.jobs.runs) == before or list(workspace.jobs.runs.values())[-1].state != "RUNNING":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=600)
    assert process.returncode != 0
    assert "submit_databricks: interrupted" in err
    assert list(workspace.jobs.runs.values())[-1].result == "CANCELED"
    assert runs(client, "attributes.status = 'RUNNING'") == []


def test_a_step_that_fails_there_says_why_here(submitted, user, client):
    result = user.submit(params="profile=few steps=wrap_custom", **ON_DRIVER | {"uc_schema": "nowhere.default"})
    assert_failed(client, result, "main failed on Databricks", "nowhere.default")


def test_an_unknown_node_type_is_refused_in_databricks_words(submitted, user, client):
    spec = json.loads((ROOT / CLUSTER).read_text())
    spec["new_cluster"]["node_type_id"] = "i3.gigantic"
    (user.root / "params/databricks/wrong.json").write_text(json.dumps(spec))
    result = user.submit(params="profile=few", cluster="params/databricks/wrong.json", env_manager="local")
    assert_failed(client, result, "Node type i3.gigantic is not supported", "correct params/databricks/wrong.json")


def test_the_job_takes_the_project_from_a_commit_of_a_git_repository(
    submitted, user, client, workspace, tmp_path_factory
):
    """The user's tracking store is a file, which the workspace can't reach: what runs there is tracked there."""
    repositories = tmp_path_factory.mktemp("repositories")
    subprocess.run(["git", "clone", "-q", "--bare", str(user.root), str(repositories / "phi.git")], check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=user.root, check=True, capture_output=True, text=True)
    local = Project(user.root, f"sqlite:///{user.home}/mlflow.db", user.home)
    env = user.profile(http_timeout_seconds=3) | {"MLFLOW_TRACKING_URI": local.uri}
    slow = Fault(r"GET /api/2\.2/jobs/runs/get$", 6.0)
    workspace.faults.append(slow)
    with GitServer(repositories) as git:
        source = {"source": f"{git.url}/phi.git", "version": head.stdout.strip()}
        result = user.submit(env, params="steps=fetch_model", **ON_DRIVER, **source)
    assert result.code == 0, result.err
    assert slow.times == 0, "no answer came later than the client waits"
    output = list(workspace.jobs.runs.values())[-1].output
    assert re.search(r"^fetch_model +reused", output, re.MULTILINE), "the files are the same, so the work is the same"
    experiment = local.client.get_experiment_by_name(EXPERIMENT)
    (submission,) = local.client.search_runs([experiment.experiment_id])
    main = client.get_run(submission.data.tags["remote_run"])
    assert (submission.info.status, main.info.status) == ("FINISHED", "FINISHED")


def test_the_workspace_registry_has_no_aliases_but_says_which_model_a_version_is(submitted, workspace, monkeypatch):
    from mlflow import MlflowClient

    for name, value in workspace.environment().items():
        monkeypatch.setenv(name, value)
    assert has_aliases(MlflowClient("databricks", "databricks-uc"), "main.default.tiny-phi3")
    client = MlflowClient("databricks", "databricks")
    assert not has_aliases(client, "tiny-phi3")
    experiment = client.get_experiment_by_name(EXPERIMENT)
    logged, *_ = client.search_logged_models([experiment.experiment_id])
    client.create_registered_model("tiny-phi3")
    version = client.create_model_version("tiny-phi3", logged.model_uri, model_id=logged.model_id)
    assert not version.model_id and version.source.startswith("dbfs:/")
    assert list(versions_by_model(client, "tiny-phi3")) == [logged.model_id]


def test_missing_and_wrong_credentials_are_one_line(root, workspace, tmp_path):
    """The tracking store is elsewhere: MLflow asks the workspace's store before any step of this project begins."""
    local = Project(root, f"sqlite:///{tmp_path}/mlflow.db", tmp_path)
    for env, part in (
        ({}, "no credentials of a Databricks workspace: set DATABRICKS_HOST"),
        ({"DATABRICKS_HOST": workspace.url, "DATABRICKS_TOKEN": "planted-wrong-token"}, "rejected the credentials"),
    ):
        result = local.run_module("submit_databricks", {"HOME": str(tmp_path)} | env, params="profile=few")
        (line,) = said(result)
        assert result.code == 1 and part in line, result.err
        assert local.runs("attributes.status = 'RUNNING'") == []
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or b"planted-wrong-token" not in file.read_bytes()


def test_no_secret_is_in_runs_artifacts_uploads_or_output(submitted, workspace, tmp_path_factory):
    files = [*workspace.folder.rglob("*"), *tmp_path_factory.getbasetemp().glob("tracking*/**/*")]
    assert files
    for token in TOKENS:
        assert token not in submitted.out + submitted.err
        for file in files:
            # The cluster's home and git's objects are the stand-in's. The uploaded tests hold the tokens as text.
            exempt = workspace.folder / "root" in file.parents or ".git" in file.parts or "tests" in file.parts
            assert exempt or not file.is_file() or token.encode() not in file.read_bytes(), file
