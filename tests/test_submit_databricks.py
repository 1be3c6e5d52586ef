"""Databricks, by the real client libraries against a stand-in on loopback that really executes what is submitted."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from steps.common.errors import StepError
from steps.databricks.cluster import read_cluster
from steps.databricks.files import project_files
from steps.databricks.job import Order, git_source, payload
from steps.databricks.launch import parse
from steps.project.mlproject import pinned_packages
from steps.registry.aliases import has_aliases
from steps.registry.versions import versions_by_model
from tests.checkout import ROOT, Project, Result, checkout, listen_to_signals
from tests.fakes.databricks.workspace import TOKENS, USER, Fault, Workspace
from tests.fakes.git_server import GitServer
from tests.fakes.servers import tracking_server

EXPERIMENT = f"/Users/{USER}/phi-mlflow"
CLUSTER = "params/databricks/cluster.json"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A checkout, with a profile whose evaluation asks little: each request to the stand-in goes twice over HTTP."""
    root = checkout(tmp_path_factory.mktemp("checkout"))
    questions = (root / "params/evalsets/tiny-qa.jsonl").read_text().splitlines()[:4]
    (root / "params/evalsets/few.jsonl").write_text("\n".join(questions) + "\n")
    profile = (root / "params/tiny.yaml").read_text()
    profile = profile.replace("evalset: params/evalsets/tiny-qa", "evalset: params/evalsets/few")
    (root / "params/few.yaml").write_text(profile)
    return root


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[str]:
    """An mlflow server that names its artifacts as Databricks does, for the client to fetch them there."""
    folder = tmp_path_factory.mktemp("tracking")
    with tracking_server(folder, "--no-serve-artifacts", "--default-artifact-root", "dbfs:/databricks/mlflow-tracking") as url:
        yield url


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, server) -> Iterator[Workspace]:
    workspace = Workspace(tmp_path_factory.mktemp("workspace"), server)
    yield workspace
    workspace.close()


def start(
    root: Path,
    workspace: Workspace,
    home: Path,
    *arguments: str,
    user: dict[str, str] | None = None,
    module: bool = False,
    **params: str,
) -> subprocess.Popen:
    """`mlflow run` as somebody who works with the workspace, by default its submit_databricks.

    Args:
        user: the environment that leads to the workspace; by default its address and a token.
        module: start submit_databricks without `mlflow run` around it: two seconds less.
    """
    command = [sys.executable, "-m", "mlflow", "run", str(root), *(arguments or ("-e", "submit_databricks"))]
    command += ["--env-manager", "local", *(part for key, value in params.items() for part in ("-P", f"{key}={value}"))]
    own = {"HOME": str(home), "MLFLOW_EXPERIMENT_NAME": EXPERIMENT}
    if module:
        command = [sys.executable, "-m", "steps.submit_databricks"]
        command += [f"--{key}={value}" for key, value in params.items()]
        own["PYTHONPATH"] = os.pathsep.join([str(root), os.environ["PYTHONPATH"]])
    return subprocess.Popen(
        command,
        cwd=home,
        env=os.environ | (user or workspace.environment()) | own,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=listen_to_signals,
    )


def with_profile(workspace: Workspace, home: Path, **settings: int) -> dict[str, str]:
    """The environment of a user who has a profile in ~/.databrickscfg, with the SDK's settings in it."""
    lines = {"host": workspace.url, "token": TOKENS[0], **settings}
    (home / ".databrickscfg").write_text("[phi]\n" + "".join(f"{key} = {value}\n" for key, value in lines.items()))
    return {"DATABRICKS_CONFIG_PROFILE": "phi", "MLFLOW_TRACKING_URI": "databricks"}


def finish(process: subprocess.Popen) -> Result:
    """Wait for it."""
    out, err = process.communicate(timeout=600)
    return Result(process.returncode, out, err)


@pytest.fixture
def home(workspace, tmp_path) -> Path:
    """The user's folder; the workspace has no faults left from an earlier test."""
    workspace.faults.clear()
    workspace.jobs.dies_when = None
    return tmp_path


@pytest.fixture
def run(root, workspace, home):
    """Submit from the checkout, and wait."""
    return lambda **params: finish(start(root, workspace, home, module=True, **params))


@pytest.fixture(scope="module")
def client(server):
    """The tracking store, without the workspace before it."""
    from mlflow import MlflowClient

    return MlflowClient(server, server)


def runs(client, filter_string: str = "") -> list:
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    return client.search_runs(ids, filter_string, order_by=["attributes.start_time DESC"])


def assert_refused(client, result: Result, *parts: str) -> None:
    """One line that holds the parts, an exit code, and every run closed."""
    lines = [line for line in result.error_lines() if line.startswith("submit_databricks: ")]
    assert result.code != 0
    assert len(lines) == 1, result.err
    for part in parts:
        assert part in lines[0]
    assert runs(client, "attributes.status = 'RUNNING'") == []


@pytest.fixture(scope="module")
def submitted(root, workspace, tmp_path_factory):
    """The whole of main, submitted from the local folder; the workspace is slow and stumbles meanwhile."""
    workspace.faults += [
        Fault(r"POST /api/2\.2/jobs/runs/submit", "late"),  # it is accepted, and nobody hears of it
        Fault(r"POST /api/2\.0/workspace/import", 429, 2, {"Retry-After": "1"}),
        Fault(r"POST /api/2\.0/workspace/import", 500, 2),
        Fault(r"POST /api/2\.0/workspace/import", "cut", 1),
        Fault(r"GET /api/2\.2/jobs/runs/get$", 503, 1, {"Retry-After": "1"}),
        Fault(r"GET /api/2\.2/jobs/runs/get$", 500, 2),
        Fault(r"GET /api/2\.2/jobs/runs/get$", 3.0, 1),
    ]
    home = tmp_path_factory.mktemp("submitter")
    params = {"params": "profile=few", "env_manager": "local", "uc_schema": "main.default"}
    result = finish(start(root, workspace, home, **params))
    assert result.code == 0, result.err
    return result


def test_main_runs_there_to_the_end_and_is_followed(submitted, client, workspace):
    lines = [line for line in submitted.out.splitlines() if not line.startswith(("🏃", "🧪"))]
    assert re.match(r"job run \d+  http://", lines[0])
    assert [line.split()[0] for line in lines[1:]][-3:] == ["TERMINATED", "main", "submit_databricks"]
    for name in ("fetch_model", "convert_onnx", "wrap_transformer", "wrap_custom", "evaluate"):
        assert re.search(rf"^{name} +\d+\.\d s  [0-9a-f]{{32}}", submitted.out, re.MULTILINE), submitted.out
    assert "champion: onnx-genai-int4" in lines[-2]
    assert len(workspace.jobs.runs) == 1, "the submission whose answer was lost made no second job"
    (main,) = runs(client, "tags.`mlflow.project.entryPoint` = 'main'")
    (submission,) = runs(client, "tags.`mlflow.project.entryPoint` = 'submit_databricks'")
    assert main.info.status == submission.info.status == "FINISHED"
    assert main.data.tags["mlflow.parentRunId"] == submission.info.run_id
    assert main.data.params["profile"] == "few"
    assert main.data.tags["mlflow.databricks.runURL"] == submission.data.tags["mlflow.databricks.runURL"]
    assert submission.data.tags["remote_run"] == main.info.run_id
    folder = workspace.folder / f"files/WorkspaceInternal/Mlflow/Artifacts/{submission.info.experiment_id}/Runs"
    output = (folder / submission.info.run_id / "artifacts/job/output.txt").read_text()
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


def test_what_is_uploaded_is_the_project_and_nothing_beside_it(submitted, root, workspace):
    (folder,) = (workspace.folder / "Workspace/Users" / USER / ".phi-mlflow").iterdir()
    there = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    assert there - {"uploaded"} == {name for name in project_files(root)}
    assert {name.split("/")[0] for name in there} == {
        "MLproject", "README.md", "conda.yaml", "params", "steps", "tests", "uploaded",
    }  # fmt: skip


def test_a_cluster_that_dies_closes_every_run_and_a_rerun_goes_on(submitted, run, client, workspace):
    def dies(job) -> bool:
        return bool(runs(client, "attributes.status = 'RUNNING' and tags.`mlflow.project.entryPoint` = 'fetch_model'"))

    workspace.jobs.dies_when = dies
    result = run(params="profile=few steps=fetch_model reuse=false", env_manager="local", uc_schema="main.default")
    assert_refused(client, result, "CLUSTER_ERROR", "DRIVER_UNREACHABLE", "main failed on Databricks")
    workspace.jobs.dies_when = None
    before = len([request for request in workspace.requests if "workspace/import" in request])
    result = run(params="profile=few", env_manager="local", uc_schema="main.default")
    assert result.code == 0, result.err
    assert len([request for request in workspace.requests if "workspace/import" in request]) == before
    assert "fetch_model" not in result.out
    (latest,) = list(workspace.jobs.runs.values())[-1:]
    assert len(re.findall(r"^\w+ +reused  ", latest.output, re.MULTILINE)) == 5


@pytest.mark.skipif(not shutil.which("rsync"), reason="rsync is not installed: apt-get install rsync, and run again")
def test_mlflows_own_backend_runs_the_tarball_to_the_end(submitted, root, client, workspace, home, tmp_path_factory):
    """As the README has it: from a work tree of the commit, which holds the project and nothing beside it."""
    folder = tmp_path_factory.mktemp("work")
    tree = folder / "tree"
    subprocess.run(["git", "worktree", "add", "-q", "--detach", str(tree)], cwd=root, check=True)
    spec = json.loads((ROOT / CLUSTER).read_text())
    spec["new_cluster"]["spark_env_vars"] = {"PHI_MLFLOW_UC_SCHEMA": "main.default"}
    config = folder / "cluster.json"
    config.write_text(json.dumps(spec))
    backend = ("-b", "databricks", "--backend-config", str(config))
    result = finish(start(tree, workspace, home, *backend, steps="fetch_model"))
    assert result.code == 0, result.err
    job = list(workspace.jobs.runs.values())[-1]
    workspace.jobs.wait(job)  # MLflow only submits
    assert job.result == "SUCCESS", job.output
    assert job.submitted["new_cluster"] == spec["new_cluster"]
    assert "mlflow run" in job.submitted["shell_command_task"]["command"][-1]
    assert re.search(r"^main +\d+\.\d s", job.output, re.MULTILINE), job.output
    latest = runs(client, "tags.`mlflow.project.entryPoint` = 'main'")[0]
    assert (latest.info.status, latest.data.params["steps"]) == ("FINISHED", "fetch_model")
    (tarball,) = (workspace.folder / "dbfs/mlflow-experiments").rglob("*.tar.gz")
    assert tarball.stat().st_size < 6_000_000
    with tarfile.open(tarball) as tar:
        files = {member.name.partition("/")[2] for member in tar.getmembers() if member.isfile()}
    listed = subprocess.run(["git", "ls-files"], cwd=tree, check=True, capture_output=True, text=True).stdout
    assert files == {*listed.split("\n"), ".git"} - {""}


def test_a_workspace_that_stays_out_of_reach_is_one_line_and_the_job_goes_on(submitted, root, home, client, workspace):
    workspace.faults.append(Fault(r"GET /api/2\.2/jobs/runs/get$", 500, 1000))
    params = {"params": "profile=few steps=fetch_model", "env_manager": "local", "uc_schema": "main.default"}
    user = with_profile(workspace, home, retry_timeout_seconds=4)
    result = finish(start(root, workspace, home, user=user, module=True, **params))
    job = list(workspace.jobs.runs.values())[-1]
    assert result.code != 0
    said = [line for line in result.error_lines() if line.startswith("submit_databricks: ")]
    assert f"job run {job.run_id} may go on; see it in the workspace" in said[0], result.err
    assert re.search(r"the workspace \S+ has failed for \d s .*: run again when it answers", said[-1])
    workspace.jobs.wait(job)
    assert job.result == "SUCCESS", job.output
    main, submission = runs(client)[:2]
    assert main.data.tags["mlflow.parentRunId"] == submission.info.run_id
    assert (main.info.status, submission.info.status) == ("FINISHED", "FAILED")


def test_ctrl_c_cancels_the_job(submitted, root, home, client, workspace):
    before = len(workspace.jobs.runs)
    params = {"params": "profile=few reuse=false", "env_manager": "local", "uc_schema": "main.default"}
    process = start(root, workspace, home, **params)
    deadline = time.monotonic() + 60
    while len(workspace.jobs.runs) == before or list(workspace.jobs.runs.values())[-1].state != "RUNNING":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "submit_databricks: interrupted" in err
    assert list(workspace.jobs.runs.values())[-1].result == "CANCELED"
    assert runs(client, "attributes.status = 'RUNNING'") == []


def test_a_step_that_fails_there_says_why_here(submitted, run, client):
    result = run(params="profile=few steps=wrap_custom", env_manager="local", uc_schema="nowhere.default")
    assert_refused(client, result, "main failed on Databricks", "nowhere.default")


def test_an_unknown_node_type_is_refused_in_databricks_words(submitted, root, run, client):
    spec = json.loads((ROOT / CLUSTER).read_text())
    spec["new_cluster"]["node_type_id"] = "i3.gigantic"
    (root / "params/databricks/wrong.json").write_text(json.dumps(spec))
    result = run(params="profile=few", cluster="params/databricks/wrong.json", env_manager="local")
    assert_refused(client, result, "Node type i3.gigantic is not supported", "correct params/databricks/wrong.json")


def test_the_job_takes_the_project_from_a_commit_of_a_git_repository(
    submitted, root, home, client, workspace, tmp_path_factory
):
    """By a user whose own tracking store is a file, out of the workspace's reach: what runs there is tracked there."""
    repositories = tmp_path_factory.mktemp("repositories")
    subprocess.run(["git", "clone", "-q", "--bare", str(root), str(repositories / "phi.git")], check=True)
    sha = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=root, check=True, capture_output=True, text=True
    ).stdout.strip()
    with GitServer(repositories) as git:
        params = {"params": "steps=fetch_model", "env_manager": "local", "uc_schema": "main.default"}
        params |= {"source": f"{git.url}/phi.git", "version": sha}
        slow = Fault(r"GET /api/2\.2/jobs/runs/get$", 6.0)
        workspace.faults.append(slow)
        own = Project(root, f"sqlite:///{home}/mlflow.db", home)
        user = with_profile(workspace, home, http_timeout_seconds=3) | {"MLFLOW_TRACKING_URI": own.uri}
        result = finish(start(root, workspace, home, user=user, module=True, **params))
    assert result.code == 0, result.err
    assert slow.times == 0, "an answer came later than the client waits for one"
    output = list(workspace.jobs.runs.values())[-1].output
    assert re.search(r"^fetch_model +reused", output, re.MULTILINE), "the same files, so the same work"
    experiment = own.client.get_experiment_by_name(EXPERIMENT)
    (submission,) = own.client.search_runs([experiment.experiment_id])
    main = client.get_run(submission.data.tags["remote_run"])
    assert (submission.info.status, main.info.status) == ("FINISHED", "FINISHED")


def test_databricks_workspace_registry_has_no_aliases_but_says_which_model_a_version_is(
    submitted, workspace, monkeypatch
):
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


def test_no_credentials_and_wrong_ones(root, workspace, tmp_path):
    """With the tracking store elsewhere: MLflow itself asks the workspace's before any step of this project begins."""
    local = Project(root, f"sqlite:///{tmp_path}/mlflow.db", tmp_path)
    for env, part in (
        ({}, "no credentials of a Databricks workspace: set DATABRICKS_HOST"),
        ({"DATABRICKS_HOST": workspace.url, "DATABRICKS_TOKEN": "planted-wrong-token"}, "refuses the credentials"),
    ):
        result = local.run_module("submit_databricks", {"HOME": str(tmp_path)} | env, params="profile=few")
        (line,) = [line for line in result.error_lines() if line.startswith("submit_databricks: ")]
        assert result.code == 1 and part in line, result.err
        assert local.runs("attributes.status = 'RUNNING'") == []
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or b"planted-wrong-token" not in file.read_bytes()


def test_no_secret_is_in_runs_artifacts_uploads_or_output(submitted, server, workspace, tmp_path_factory):
    tracking = tmp_path_factory.getbasetemp()
    places = [*workspace.folder.rglob("*"), *tracking.glob("tracking*/**/*")]
    for secret in (token.encode() for token in TOKENS):
        assert secret.decode() not in submitted.out + submitted.err
        for file in places:
            own = workspace.folder / "root" in file.parents or ".git" in file.parts
            assert own or not file.is_file() or secret not in file.read_bytes() or _is_this_test(file), file


def _is_this_test(file: Path) -> bool:
    """The uploaded tests hold the stand-in's tokens as they are written here."""
    return "tests" in file.parts


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "expected"),
        ('{"cluster_spec": {}}', "'cluster_spec' is not what the Jobs API takes"),
        ('{"new_cluster": {"spark_version": "15.4.x-scala2.12"}}', "new_cluster has no node_type_id"),
        ('{"new_clusters": {}}', "did you mean 'new_cluster'"),
        ('{"new_cluster": {}, "existing_cluster_id": "x"}', 'or {"existing_cluster_id": "..."}'),
    ],
)
def test_a_cluster_file_that_is_none(tmp_path, content, part):
    file = tmp_path / "cluster.json"
    file.write_text(content)
    with pytest.raises(StepError, match=re.escape(part)):
        read_cluster(file, "mine.json")


ORDER = Order("main", {"profile": "tiny"}, "databricks", "", "1", "2" * 32, "uv", "")


def test_the_git_source_is_what_the_jobs_api_takes():
    from databricks.sdk.service.jobs import GitSource

    url, sha = "https://github.com/someone/phi-mlflow", "a" * 40
    assert git_source(url, "") == {"git_url": url, "git_provider": "gitHub", "git_branch": "main"}
    assert git_source(url, "tags/v1")["git_tag"] == "v1"
    assert git_source("https://gitlab.example.com/x/y", sha)["git_provider"] == "gitLabEnterpriseEdition"
    assert GitSource.from_dict(git_source(url, sha)).git_commit == sha
    with pytest.raises(StepError, match="credentials in it"):
        git_source("https://someone:token@github.com/someone/phi-mlflow", "")
    body = payload(ORDER, read_cluster(ROOT / CLUSTER, CLUSTER), [], "", git_source(url, sha), 60)
    task = body["tasks"][0]["spark_python_task"]
    assert (task["source"], task["python_file"]) == ("GIT", "steps/databricks/launch.py")
    assert (body["git_source"]["git_commit"], body["timeout_seconds"]) == (sha, 60)


def test_dependencies_come_from_conda_yaml():
    cluster = read_cluster(ROOT / CLUSTER, CLUSTER)
    base = payload(ORDER, cluster, pinned_packages(("mlflow", "uv")), "/x", None, 0)["tasks"][0]["libraries"]
    assert sorted(one["pypi"]["package"] for one in base) == sorted(pinned_packages(("mlflow", "uv")))
    whole = payload(ORDER, cluster, pinned_packages(), "/x", None, 0)["tasks"][0]["libraries"]
    assert sorted(one["pypi"]["package"] for one in whole) == sorted(pinned_packages())


def test_the_asset_bundle_submits_what_submit_databricks_does():
    bundle = yaml.safe_load((ROOT / "params/databricks/databricks.yml").read_text())
    (job,) = bundle["resources"]["jobs"].values()
    (task,) = job["tasks"]
    spec = json.loads((ROOT / CLUSTER).read_text())
    assert job["job_clusters"][0]["new_cluster"] == spec["new_cluster"]
    own = payload(ORDER, read_cluster(ROOT / CLUSTER, CLUSTER), pinned_packages(("mlflow", "uv")), "/x", None, 0)
    key = lambda one: one["pypi"]["package"]  # noqa: E731
    assert sorted(task["libraries"], key=key) == sorted(own["tasks"][0]["libraries"], key=key)
    file = ROOT / "params/databricks" / task["spark_python_task"]["python_file"]
    assert file.resolve() == ROOT / "steps/databricks/launch.py"
    assert {(ROOT / "params/databricks" / path).resolve() for path in bundle["sync"]["paths"]} == {
        ROOT / name for name in ("MLproject", "conda.yaml", "README.md", "steps", "params")
    }
    arguments = task["spark_python_task"]["parameters"]
    for name, value in bundle["variables"].items():
        arguments = [part.replace(f"${{var.{name}}}", value["default"]) for part in arguments]
    given = parse(arguments)
    assert (given.entry_point, given.parameters, given.env_manager) == ("main", ["profile=tiny"], "uv")
    assert given.uc_schema.count(".") == 1
