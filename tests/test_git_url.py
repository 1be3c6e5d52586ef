"""Run the project from a git URL in an empty folder, `mlflow run http://.../repo.git -v VERSION`, by a real server."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import ExecutionException

from tests.checkout import Project, Result, checkout, git
from tests.fakes.git_server import GitServer

pytestmark = pytest.mark.e2e

TOKEN = "planted-token-9"
SUBDIRECTORY = "projects/phi"


def commit(folder: Path) -> str:
    """Commit everything. Return the commit's SHA."""
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "More")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A working copy of the project as it stands. The fixture `commits` adds commits to it."""
    return checkout(tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def commits(work) -> dict[str, str]:
    """Name -> SHA. `here` is the project as it stands, `main` adds a note, and `candidate` changes fetch_model too."""
    shas = {"here": git(work, "rev-parse", "HEAD")}
    (work / "NOTES").write_text("a later commit\n")
    shas["main"] = commit(work)
    git(work, "checkout", "-qb", "candidate")
    module = work / "steps" / "fetch_model.py"
    command_line = 'if __name__ == "__main__":\n'
    assert command_line in module.read_text()
    module.write_text(
        module.read_text().replace(command_line, f'{command_line}    print("the candidate\'s own code")\n')
    )
    shutil.copy(work / "params" / "tiny.yaml", work / "params" / "theirs.yaml")
    shas["candidate"] = commit(work)
    git(work, "checkout", "-q", shas["here"])
    return shas


@pytest.fixture(scope="module")
def repositories(work, commits, tmp_path_factory) -> Path:
    """A folder with bare repositories: repo.git; nested.git, with the project in a folder. Both have a tag v1."""
    folder = tmp_path_factory.mktemp("repositories")
    git(folder, "clone", "-q", "--bare", str(work), "repo.git")
    git(folder / "repo.git", "tag", "v1", commits["here"])
    nested = tmp_path_factory.mktemp("nested")
    git(nested, "init", "-q", "-b", "main")
    (nested / SUBDIRECTORY).mkdir(parents=True)
    for name in git(work, "ls-tree", "--name-only", commits["here"]).splitlines():
        copy = shutil.copytree if (work / name).is_dir() else shutil.copy
        copy(work / name, nested / SUBDIRECTORY / name)
    commits["nested"] = commit(nested)
    git(nested, "tag", "v1")
    (nested / "NOTES").write_text("a later commit\n")
    commit(nested)
    git(folder, "clone", "-q", "--bare", str(nested), "nested.git")
    return folder


@pytest.fixture(scope="module")
def server(repositories) -> Iterator[GitServer]:
    """A git server that asks for no credentials."""
    with GitServer(repositories) as server:
        yield server


@pytest.fixture(scope="module")
def user(tmp_path_factory) -> Path:
    """The empty folder in which a user stands. Temporary files go to the folder `tmp` beside it."""
    folder = tmp_path_factory.mktemp("user")
    for name in ("here", "tmp"):
        (folder / name).mkdir()
    return folder / "here"


def mlflow_run(user: Path, uri: str, *arguments: str) -> Result:
    """Run `mlflow run` as a user does who has chosen no tracking store."""
    done = subprocess.run(
        [sys.executable, "-m", "mlflow", "run", uri, "--env-manager", "local", *arguments],
        cwd=user,
        env=os.environ | {"TMPDIR": str(user.parent / "tmp")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def store(user: Path) -> Project:
    """Return the user's folder with the store that `mlflow run` makes in it."""
    return Project(user, f"sqlite:///{user}/mlflow.db", user)


ONLY_FETCH = ("-P", "profile=tiny", "-P", "steps=fetch_model")


@pytest.fixture(scope="module")
def first(user, work, commits, repositories) -> str:
    """The ID of a fetch_model run that `main` started in a local checkout at the commit `here`."""
    result = mlflow_run(user, str(work), *ONLY_FETCH)
    assert result.code == 0, result.err
    run = store(user).latest("fetch_model")
    assert run.data.tags["mlflow.source.git.commit"] == commits["here"]
    return run.info.run_id


def assert_only_the_store_is_left(user: Path) -> None:
    """Check that the user's folder holds the store and artifacts, and nothing else. MLflow clones into tmp."""
    assert sorted(path.name for path in user.iterdir()) == ["mlflow.db", "mlruns"]
    assert list((user.parent / "tmp").glob("phi-mlflow*")) == []
    for run in store(user).runs():
        assert run.info.status == "FINISHED"
        assert Path(run.info.artifact_uri.removeprefix("file://")).is_relative_to(user)
        assert (user / "mlruns" / "0" / run.info.run_id / "artifacts" / "logs" / "output.log").is_file()


def assert_reused(user: Path, result: Result, run_id: str, sha: str) -> None:
    """Check that `main` reused a run and started none, and that its own run names the commit."""
    assert result.code == 0, result.err
    assert re.match(rf"fetch_model +reused  {run_id}", result.out), result.out
    assert store(user).latest("fetch_model").info.run_id == run_id
    assert store(user).latest("main").data.tags["mlflow.source.git.commit"] == sha
    assert_only_the_store_is_left(user)


def test_a_commit_reuses_the_run_of_a_local_checkout(server, user, commits, first):
    """The version is a full SHA that is at the head of no branch."""
    result = mlflow_run(user, f"{server.url}/repo.git", "-v", commits["here"], "-e", "main", *ONLY_FETCH)
    assert_reused(user, result, first, commits["here"])


def test_a_tag_of_a_repository_with_the_project_in_a_folder_reuses_it_too(server, user, commits, first):
    """Reuse compares the project's files. They are the same here, in another repository at another commit."""
    result = mlflow_run(user, f"{server.url}/nested.git#{SUBDIRECTORY}", "-v", "v1", "-e", "main", *ONLY_FETCH)
    assert_reused(user, result, first, commits["nested"])


@pytest.fixture(scope="module")
def private(repositories) -> Iterator[GitServer]:
    """A git server that asks for TOKEN."""
    with GitServer(repositories, ("somebody", TOKEN)) as server:
        yield server


@pytest.fixture(scope="module")
def candidate(private, user, first) -> Result:
    """A run of `main` on the branch `candidate`, with the token in the address."""
    uri = f"http://somebody:{TOKEN}@{private.address}/repo.git"
    # Only the branch has this profile, and the edit of fetch_model, for which no finished run can be reused.
    result = mlflow_run(user, uri, "-v", "candidate", "-P", "profile=theirs", "-P", "steps=fetch_model")
    assert result.code == 0, result.err
    return result


def test_a_private_repository_is_cloned_with_the_token(private, candidate):
    assert {path for _, path, authorised in private.requests if not authorised} == {"/repo.git/info/refs"}
    assert ("POST", "/repo.git/git-upload-pack", True) in private.requests


def test_a_branch_runs_its_own_code(candidate, user, commits, first):
    assert re.match(r"fetch_model +\d+\.\d s", candidate.out), candidate.out
    main, step = store(user).latest("main"), store(user).latest("fetch_model")
    assert step.info.run_id != first
    assert step.data.tags["mlflow.parentRunId"] == main.info.run_id
    for run in (main, step):
        assert run.data.tags["mlflow.source.git.commit"] == commits["candidate"]
    assert main.data.tags["mlflow.source.git.branch"] == "candidate"
    assert "the candidate's own code" in mlflow.artifacts.load_text(main.info.artifact_uri + "/logs/output.log")
    assert_only_the_store_is_left(user)


def test_a_token_in_the_address_is_in_no_run_and_no_file(candidate, private, user):
    for run in store(user).runs():
        assert TOKEN not in str(run.to_dictionary()), run.info.run_id
    source = store(user).latest("main").data.tags["mlflow.source.name"]
    assert source.endswith(f"{private.address}/repo.git"), "the address without the token is kept"
    subprocess.run([sys.executable, "-c", VACUUM, "mlflow.db"], cwd=user, check=True)
    for file in (path for path in user.rglob("*") if path.is_file()):
        assert TOKEN.encode() not in file.read_bytes(), file


# Some builds of SQLite leave deleted rows in the file. VACUUM writes the file anew.
VACUUM = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('VACUUM')"


@pytest.mark.parametrize(
    ("project", "version", "message"),
    [
        ("repo.git", "v2", "Unable to checkout version 'v2' of git repo"),
        ("nested.git#projects/psi", "v1", "Could not find subdirectory projects/psi"),
    ],
)
def test_mlflow_refuses_a_version_or_a_folder_that_the_repository_lacks_before_there_is_a_run(
    server, user, first, project, version, message, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(user.parent / "tmp"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store(user).uri)
    before = len(store(user).runs())
    with pytest.raises(ExecutionException, match=message):
        mlflow.run(f"{server.url}/{project}", version=version, env_manager="local", experiment_id="0")
    assert len(store(user).runs()) == before
