"""The project from a git URL: `mlflow run http://.../repo.git -v VERSION` in an empty folder, and a real git server."""

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

from tests.conftest import Project, Result, checkout
from tests.fakes.git_server import GitServer

TOKEN = "planted-token-9"
SUBDIRECTORY = "projects/phi"


def git(folder: Path, *arguments: str) -> str:
    """What a git command prints."""
    command = ["git", "-c", "user.name=tests", "-c", "user.email=tests@localhost", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def commit(folder: Path) -> str:
    """Commit everything; the commit's SHA."""
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "More")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A working copy whose branch `main` is one commit ahead of what stands here, and `candidate` two."""
    return checkout(tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def commits(work) -> dict[str, str]:
    """Name -> SHA: `here`, the project as it stands; `main`, a note more; `candidate`, another fetch_model."""
    found = {"here": git(work, "rev-parse", "HEAD")}
    (work / "NOTES").write_text("a later commit\n")
    found["main"] = commit(work)
    git(work, "checkout", "-qb", "candidate")
    module = work / "steps" / "fetch_model.py"
    guard = 'if __name__ == "__main__":\n'
    assert guard in module.read_text()
    module.write_text(module.read_text().replace(guard, f'{guard}    print("the candidate\'s own code")\n'))
    shutil.copy(work / "params" / "tiny.yaml", work / "params" / "theirs.yaml")
    found["candidate"] = commit(work)
    git(work, "checkout", "-q", found["here"])
    return found


@pytest.fixture(scope="module")
def repositories(work, commits, tmp_path_factory) -> Path:
    """Bare ones: repo.git; and nested.git, which has the project in a folder, in the commit that its tag v1 names."""
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
    """It gives everything to everybody."""
    with GitServer(repositories) as server:
        yield server


@pytest.fixture(scope="module")
def user(tmp_path_factory) -> Path:
    """The folder that a user stands in, empty; beside it is `tmp` for temporary files."""
    folder = tmp_path_factory.mktemp("user")
    for name in ("here", "tmp"):
        (folder / name).mkdir()
    return folder / "here"


def mlflow_run(user: Path, uri: str, *arguments: str) -> Result:
    """`mlflow run` as a user types it who has named no tracking store."""
    done = subprocess.run(
        [sys.executable, "-m", "mlflow", "run", uri, "--env-manager", "local", *arguments],
        cwd=user,
        env=os.environ | {"TMPDIR": str(user.parent / "tmp")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def store(user: Path) -> Project:
    """The store that `mlflow run` makes where the user stands."""
    return Project(user, f"sqlite:///{user}/mlflow.db", user)


ONLY_FETCH = ("-P", "profile=tiny", "-P", "steps=fetch_model")


@pytest.fixture(scope="module")
def first(user, work, commits, repositories) -> str:
    """The ID of a fetch_model run that `main` started in a local checkout, at the commit `here`."""
    result = mlflow_run(user, str(work), *ONLY_FETCH)
    assert result.code == 0, result.err
    run = store(user).latest("fetch_model")
    assert run.data.tags["mlflow.source.git.commit"] == commits["here"]
    return run.info.run_id


def assert_only_the_store_is_left(user: Path) -> None:
    """The store and each run's artifacts are where the user stands, and no more. MLflow leaves its clone in tmp."""
    assert sorted(path.name for path in user.iterdir()) == ["mlflow.db", "mlruns"]
    assert list((user.parent / "tmp").glob("phi-mlflow*")) == []
    for run in store(user).runs():
        assert run.info.status == "FINISHED"
        assert Path(run.info.artifact_uri.removeprefix("file://")).is_relative_to(user)
        assert (user / "mlruns" / "0" / run.info.run_id / "artifacts" / "logs" / "output.log").is_file()


def assert_reused(user: Path, result: Result, run_id: str, sha: str) -> None:
    """`main` found that run, started none, and its own run has the commit."""
    assert result.code == 0, result.err
    assert re.match(rf"fetch_model +reused  {run_id}", result.out), result.out
    assert store(user).latest("fetch_model").info.run_id == run_id
    assert store(user).latest("main").data.tags["mlflow.source.git.commit"] == sha
    assert_only_the_store_is_left(user)


def test_a_commit_reuses_what_a_local_checkout_of_it_ran(server, user, commits, first):
    """A full SHA, which no branch is at."""
    result = mlflow_run(user, f"{server.url}/repo.git", "-v", commits["here"], "-e", "main", *ONLY_FETCH)
    assert_reused(user, result, first, commits["here"])


def test_a_tag_of_a_repository_that_holds_the_project_in_a_folder(server, user, commits, first):
    """What counts are the project's files: they are the same in another repository, at another commit."""
    result = mlflow_run(user, f"{server.url}/nested.git#{SUBDIRECTORY}", "-v", "v1", "-e", "main", *ONLY_FETCH)
    assert_reused(user, result, first, commits["nested"])


def test_a_branch_runs_its_own_code_and_a_token_in_the_address_is_in_no_run(repositories, user, commits, first):
    with GitServer(repositories, ("somebody", TOKEN)) as private:
        uri = f"http://somebody:{TOKEN}@{private.address}/repo.git"
        # The profile is one that the branch alone has, and so is the edit for which nothing that is finished will do.
        result = mlflow_run(user, uri, "-v", "candidate", "-P", "profile=theirs", "-P", "steps=fetch_model")
        assert {path for _, path, authorised in private.requests if not authorised} == {"/repo.git/info/refs"}
        assert ("POST", "/repo.git/git-upload-pack", True) in private.requests
    assert result.code == 0, result.err
    assert re.match(r"fetch_model +\d+\.\d s", result.out), result.out
    main, step = store(user).latest("main"), store(user).latest("fetch_model")
    assert step.info.run_id != first
    assert step.data.tags["mlflow.parentRunId"] == main.info.run_id
    for run in (main, step):
        assert run.data.tags["mlflow.source.git.commit"] == commits["candidate"]
    assert main.data.tags["mlflow.source.git.branch"] == "candidate"
    assert "the candidate's own code" in mlflow.artifacts.load_text(main.info.artifact_uri + "/logs/output.log")
    assert_only_the_store_is_left(user)

    for run in store(user).runs():
        assert TOKEN not in str(run.to_dictionary()), run.info.run_id
    assert main.data.tags["mlflow.source.name"].endswith(f"{private.address}/repo.git"), "but where it is from is said"
    subprocess.run([sys.executable, "-c", VACUUM, "mlflow.db"], cwd=user, check=True)
    for file in (path for path in user.rglob("*") if path.is_file()):
        assert TOKEN.encode() not in file.read_bytes(), file


# What a page of the database has lost is left in the file by some builds of SQLite, and overwritten by others.
VACUUM = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('VACUUM')"


@pytest.mark.parametrize(
    ("project", "version", "said"),
    [
        ("repo.git", "v2", "Unable to checkout version 'v2' of git repo"),
        ("nested.git#projects/psi", "v1", "Could not find subdirectory projects/psi"),
    ],
)
def test_what_the_repository_lacks_is_refused_before_there_is_a_run(
    server, user, first, project, version, said, monkeypatch
):
    """By MLflow, before it has any code of this project; called as its command line calls it."""
    monkeypatch.setattr(tempfile, "tempdir", str(user.parent / "tmp"))
    before = len(store(user).runs())
    mlflow.set_tracking_uri(store(user).uri)
    try:
        with pytest.raises(ExecutionException, match=said):
            mlflow.run(f"{server.url}/{project}", version=version, env_manager="local", experiment_id="0")
    finally:
        mlflow.set_tracking_uri(None)
    assert len(store(user).runs()) == before
