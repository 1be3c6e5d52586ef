"""What all tests share: loopback as the only network, the order of files, a hub, tracking servers, converted models."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.checkout import ROOT, TINY, Project, Result, checkout
from tests.fakes import servers
from tests.fakes.hub import Hub
from tests.guard import sitecustomize

# The import keeps this process from reaching other machines. PYTHONPATH does it in every process that the tests start.
GUARD = Path(sitecustomize.__file__).parent
os.environ["PYTHONPATH"] = os.pathsep.join([str(GUARD), os.environ.get("PYTHONPATH", "")])

# What the user's shell exports must not reach the tests: credentials, the address of a store or a hub.
for name in [name for name in os.environ if name.startswith(("HF_", "MLFLOW_", "DATABRICKS_", "AWS_"))]:
    del os.environ[name]
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # `python` is this one
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"

# Hypothesis keeps its tables of characters and its failed examples outside the project's folder.
os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = f"{tempfile.gettempdir()}/phi-mlflow-hypothesis-{os.getuid()}"

MARKERS = ("e2e", "model", "unit")  # the slowest first
TOOLS = {".git", ".mypy_cache", ".ruff_cache"}  # what git and the checks of types and style keep in the project


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Skip the files without unit tests under `-m unit`: importing them takes longer than all unit tests."""
    if config.option.markexpr != "unit" or not collection_path.match("test_*.py"):
        return None
    return "mark.unit" not in collection_path.read_text(encoding="utf-8") or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slowest files first: with e2e tests, then with model tests, then with unit tests only.

    `--dist loadfile` hands out files in this order, so no process is left with a slow file at the end.
    """
    ranks: dict[Path, int] = {}
    for item in items:
        markers = [MARKERS.index(mark.name) for mark in item.iter_markers() if mark.name in MARKERS]
        if len(markers) != 1:
            raise pytest.UsageError(f"{item.nodeid} needs exactly one of the markers {', '.join(MARKERS)}")
        ranks[item.path] = min(ranks.get(item.path, len(MARKERS)), *markers)
    items.sort(key=lambda item: ranks[item.path])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Let one process run all files of tests/main, because they share one cold `main`; elsewhere it is one file."""
    from xdist.scheduler import LoadFileScheduling

    class LoadFolderOfMain(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            folder = "tests/main/"
            return folder if nodeid.startswith(folder) else super()._split_scope(nodeid)

    return LoadFolderOfMain(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left_in_the_tree() -> Iterator[None]:
    """Check that the tests leave no store, artifacts, caches or temporary files in the project's folder."""

    def names() -> set[str]:
        return {path.name for path in ROOT.iterdir()} - TOOLS

    before = names()
    yield
    assert names() == before


@pytest.fixture(scope="module", autouse=True)
def no_store_is_left_to_the_next_module() -> Iterator[None]:
    """Check that the tests of a module leave no address of a store to the modules that run after it."""
    yield
    assert os.environ.pop("MLFLOW_TRACKING_URI", None) is None, "use tests.checkout.tracking_store"


@dataclass(frozen=True)
class Backend:
    """A tracking server, and what is behind it."""

    url: str
    database: str
    bucket_env: dict[str, str]  # the environment in which boto3 finds the bucket


@pytest.fixture(scope="session")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """A tracking server that asks for a password, has PostgreSQL behind it, and proxies its artifacts to S3.

    Where PostgreSQL is not installed, SQLite is behind it.
    """
    folder = tmp_path_factory.mktemp("server")
    with contextlib.ExitStack() as stack:
        programs = servers.postgres_programs()
        database = stack.enter_context(servers.postgres(programs)) if programs else f"sqlite:///{folder}/mlflow.db"
        bucket = stack.enter_context(servers.s3())
        arguments = ("--artifacts-destination", "s3://phi/store", "--app-name", "basic-auth")
        env = servers.basic_auth(folder) | bucket
        url = stack.enter_context(servers.tracking_server(folder, *arguments, store=database, env=env))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("MLFLOW_TRACKING_USERNAME", servers.ADMIN)
        patch.setenv("MLFLOW_TRACKING_PASSWORD", servers.PASSWORD)
        yield Backend(url, database, bucket)


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory, backend: Backend) -> Project:
    """A checkout against the tracking server, for the tests of the pipeline as a whole."""
    return Project(checkout(tmp_path_factory.mktemp("project")), backend.url, tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def cold(project: Project) -> Result:
    """The first `main` of that checkout, in which every step runs."""
    result = project.run("main")
    assert result.code == 0, result.err
    return result


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A checkout against a SQLite store in the user's folder, which is the default of `mlflow run`."""
    home = tmp_path_factory.mktemp("local")
    return Project(checkout(tmp_path_factory.mktemp("checkout")), f"sqlite:///{home}/mlflow.db", home)


@pytest.fixture(scope="session")
def fetched(local: Project) -> str:
    """The ID of a finished fetch_model run in the local store."""
    result = local.run("fetch_model", source="params/tiny-phi3")
    assert result.code == 0, result.err
    return local.latest("fetch_model").info.run_id


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub on loopback."""
    hub = Hub()
    yield hub
    hub.close()


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of every geometry at reduced size, with random weights."""
    from tests.checkpoints.geometries import GEOMETRIES, make_checkpoint

    return {name: make_checkpoint(tmp_path_factory.mktemp("checkpoint") / name, name, TINY) for name in GEOMETRIES}


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The shipped checkpoint as ONNX: "genai int4", "genai int8", "genai fp32", "optimum fp32"."""
    from steps.conversion.convert import convert
    from steps.conversion.options import parse_choice

    folders = {}
    for exporter, precision in (("genai", "int4"), ("genai", "int8"), ("genai", "fp32"), ("optimum", "fp32")):
        out = tmp_path_factory.mktemp("onnx") / f"{exporter}-{precision}"
        convert(TINY, out, parse_choice(exporter, precision, "", "cpu"))
        folders[f"{exporter} {precision}"] = out
    return folders
