"""What is submitted: the git source, the libraries, and the same job as an asset bundle."""

import json

import pytest
import yaml

from steps.common.errors import StepError
from steps.databricks.git_source import git_source
from steps.databricks.launch import parse
from steps.databricks.options import Options, parse_options
from steps.databricks.payload import RunAddress, payload
from steps.project.mlproject import entry_points, pinned_packages
from tests.checkout import ROOT

pytestmark = pytest.mark.unit

RUN = RunAddress("databricks", "", "1", "2" * 32)
URL, SHA = "https://github.com/someone/phi-mlflow", "a" * 40


def options(**changes: str) -> Options:
    """Return the options for MLproject's defaults, and these changes."""
    defaults = {name: value or "" for name, value in entry_points()["submit_databricks"].items()}
    return parse_options(defaults | {"params": "profile=tiny"} | changes, ROOT, entry_points())


def names(libraries: list[dict]) -> list[str]:
    """Return the requirements of a list of libraries, sorted."""
    return sorted(library["pypi"]["package"] for library in libraries)


def test_the_git_source_is_what_the_jobs_api_takes():
    from databricks.sdk.service.jobs import GitSource

    assert git_source(URL, "") == {"git_url": URL, "git_provider": "gitHub", "git_branch": "main"}
    assert git_source(URL, "tags/v1")["git_tag"] == "v1"
    assert git_source("https://gitlab.example.com/x/y", SHA)["git_provider"] == "gitLabEnterpriseEdition"
    assert GitSource.from_dict(git_source(URL, SHA)).git_commit == SHA


def test_a_git_url_with_credentials_is_refused():
    with pytest.raises(StepError, match="credentials in it"):
        git_source("https://someone:token@github.com/someone/phi-mlflow", "")


def test_a_job_from_git_runs_the_launcher_of_the_repository():
    body = payload(options(source=URL, version=SHA, timeout="60"), RUN, [], "")
    task = body["tasks"][0]["spark_python_task"]
    assert (task["source"], task["python_file"]) == ("GIT", "steps/databricks/launch.py")
    assert (body["git_source"]["git_commit"], body["timeout_seconds"]) == (SHA, 60)


def test_dependencies_come_from_conda_yaml():
    for packages in (pinned_packages(("mlflow", "uv")), pinned_packages()):
        body = payload(options(), RUN, packages, "/x")
        assert names(body["tasks"][0]["libraries"]) == sorted(packages)


def test_the_asset_bundle_submits_what_submit_databricks_does():
    bundle = yaml.safe_load((ROOT / "params/databricks/databricks.yml").read_text())
    (job,) = bundle["resources"]["jobs"].values()
    (task,) = job["tasks"]
    cluster = json.loads((ROOT / "params/databricks/cluster.json").read_text())
    assert job["job_clusters"][0]["new_cluster"] == cluster["new_cluster"]
    submitted = payload(options(), RUN, pinned_packages(("mlflow", "uv")), "/x")
    assert names(task["libraries"]) == names(submitted["tasks"][0]["libraries"])
    file = ROOT / "params/databricks" / task["spark_python_task"]["python_file"]
    assert file.resolve() == ROOT / "steps/databricks/launch.py"
    assert {(ROOT / "params/databricks" / path).resolve() for path in bundle["sync"]["paths"]} == {
        ROOT / name for name in ("MLproject", "conda.yaml", "README.md", "steps", "params")
    }
    arguments = task["spark_python_task"]["parameters"]
    for name, value in bundle["variables"].items():
        arguments = [part.replace(f"${{var.{name}}}", value["default"]) for part in arguments]
    parsed = parse(arguments)
    assert (parsed.entry_point, parsed.parameters, parsed.env_manager) == ("main", ["profile=tiny"], "uv")
    assert parsed.uc_schema.count(".") == 1


def test_the_launcher_understands_what_is_submitted():
    arguments = payload(options(uc_schema="main.default"), RUN, [], "/x")["tasks"][0]["spark_python_task"]["parameters"]
    parsed = parse(arguments)
    assert (parsed.entry_point, parsed.parameters, parsed.run_id) == ("main", ["profile=tiny"], RUN.run_id)
    assert (parsed.tracking_uri, parsed.experiment_id, parsed.uc_schema) == ("databricks", "1", "main.default")
