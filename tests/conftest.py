"""What the tests share: no network but loopback, a hub, a tracking server, and the pipeline run once."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TINY = ROOT / "params" / "tiny-phi3"
sys.path.insert(0, str(ROOT))

# The guard is imported here for this process, and by every Python process that the tests start.
sys.path.insert(0, str(ROOT / "tests" / "guard"))
import sitecustomize  # noqa: E402

sys.addaudithook(sitecustomize._guard)
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "tests" / "guard"), os.environ.get("PYTHONPATH", "")])
for name in [name for name in os.environ if name.startswith(("HF_", "MLFLOW_", "DATABRICKS_", "AWS_"))]:
    del os.environ[name]
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # `python` is this one
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"

from tests.fakes import servers  # noqa: E402
from tests.fakes.hub import Hub  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left_in_the_tree():
    """The tests leave no store, artifacts or temporary files in the project's folder."""

    def visible() -> set[str]:
        return {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}

    before = visible()
    yield
    assert visible() == before


@dataclass
class Result:
    """What a person sees of a command: its exit code, and stdout and stderr."""

    code: int
    out: str
    err: str

    def error_lines(self) -> list[str]:
        """Stderr without MLflow's own log lines and warnings."""
        lines = [line for line in self.err.splitlines() if line.strip()]
        return [line for line in lines if " INFO mlflow" not in line and " ERROR mlflow.cli" not in line]


def listen_to_signals() -> None:
    """As in a terminal: a test run in the background of a script inherits SIGINT ignored, and hands that on."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_DFL)


@dataclass
class Project:
    """A checkout of the project and a tracking store to run it against."""

    root: Path
    uri: str
    home: Path

    @property
    def client(self):
        """MLflow's client of the store."""
        from mlflow import MlflowClient

        return MlflowClient(self.uri, self.uri)

    def _env(self, **more: str) -> dict[str, str]:
        return {"MLFLOW_TRACKING_URI": self.uri, "HF_HOME": str(self.home / "hf")} | more

    def run_module(self, entry_point: str, env: dict[str, str] | None = None, **params: str) -> Result:
        """The command of an entry point, without `mlflow run` around it: two seconds less."""
        process = subprocess.run(
            [sys.executable, "-m", f"steps.{entry_point}", *(f"--{key}={value}" for key, value in params.items())],
            cwd=self.home,
            env=os.environ
            | self._env(PYTHONPATH=os.pathsep.join([str(self.root), os.environ["PYTHONPATH"]]), **(env or {})),
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        return Result(process.returncode, process.stdout, process.stderr)

    def start(self, entry_point: str, env: dict[str, str] | None = None, **params: str) -> subprocess.Popen:
        """`mlflow run` as a user starts it, in the environment of the tests, in a process group of its own."""
        arguments = [part for key, value in params.items() for part in ("-P", f"{key}={value}")]
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "mlflow",
                "run",
                str(self.root),
                "-e",
                entry_point,
                "--env-manager",
                "local",
                *arguments,
            ],
            cwd=self.home,
            env=os.environ | self._env(**(env or {})),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            preexec_fn=listen_to_signals,
        )

    def run(self, entry_point: str, env: dict[str, str] | None = None, **params: str) -> Result:
        """Start and wait."""
        process = self.start(entry_point, env, **params)
        out, err = process.communicate(timeout=600)
        return Result(process.returncode, out, err)

    def runs(self, filter_string: str = "") -> list:
        """All runs of the default experiment, the latest first."""
        return self.client.search_runs(["0"], filter_string, order_by=["attributes.start_time DESC"])

    def latest(self, entry_point: str):
        """The latest run of an entry point."""
        return self.runs(f"tags.`mlflow.project.entryPoint` = '{entry_point}'")[0]


def checkout(target: Path) -> Path:
    """A clone of the project as it stands, uncommitted changes included."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    git = ["git", "-c", "user.name=tests", "-c", "user.email=tests@localhost"]
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-qm", "As it stands"]):
        subprocess.run([*git, *command], cwd=target, check=True)
    return target


@dataclass
class Backend:
    """A tracking server and what is behind it: its database and its bucket, with the environment that reaches that."""

    url: str
    database: str
    bucket_env: dict[str, str]


@pytest.fixture(scope="session")
def backend(tmp_path_factory) -> Iterator[Backend]:
    """A tracking server that asks for a password, has PostgreSQL behind it, and proxies its artifacts to S3.

    Where PostgreSQL is not installed it has SQLite.
    """
    folder = tmp_path_factory.mktemp("server")
    with contextlib.ExitStack() as stack:
        programs = servers.postgres_programs()
        database = stack.enter_context(servers.postgres(programs)) if programs else f"sqlite:///{folder}/mlflow.db"
        bucket = stack.enter_context(servers.s3())
        given = ("--artifacts-destination", "s3://phi/store", "--app-name", "basic-auth")
        env = servers.basic_auth(folder) | bucket
        url = stack.enter_context(servers.serve(folder, *given, store=database, **env))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("MLFLOW_TRACKING_USERNAME", servers.ADMIN)
        patch.setenv("MLFLOW_TRACKING_PASSWORD", servers.PASSWORD)
        yield Backend(url, database, bucket)


@pytest.fixture(scope="session")
def project(tmp_path_factory, backend) -> Project:
    """A checkout against the tracking server, for the tests of the pipeline as a whole."""
    return Project(checkout(tmp_path_factory.mktemp("project")), backend.url, tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def cold(project) -> Result:
    """The first `main` of that checkout: everything runs."""
    result = project.run("main")
    assert result.code == 0, result.err
    return result


@pytest.fixture(scope="session")
def local(tmp_path_factory) -> Project:
    """A checkout against a SQLite store in the user's folder, as `mlflow run` has it by default: for bad input."""
    home = tmp_path_factory.mktemp("local")
    return Project(checkout(tmp_path_factory.mktemp("checkout")), f"sqlite:///{home}/mlflow.db", home)


@pytest.fixture(scope="session")
def fetched(local) -> str:
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
def checkpoints(tmp_path_factory) -> dict[str, Path]:
    """A checkpoint of every geometry at reduced size, with random weights."""
    from tests.checkpoints.geometries import GEOMETRIES, make_checkpoint

    return {name: make_checkpoint(tmp_path_factory.mktemp("checkpoint") / name, name, TINY) for name in GEOMETRIES}


@pytest.fixture(scope="session")
def converted(tmp_path_factory) -> dict[str, Path]:
    """The shipped checkpoint as ONNX: "genai int4", "genai int8", "genai fp32", "optimum fp32"."""
    from steps.conversion.convert import convert
    from steps.conversion.options import parse_choice

    folders = {}
    for exporter, precision in (("genai", "int4"), ("genai", "int8"), ("genai", "fp32"), ("optimum", "fp32")):
        out = tmp_path_factory.mktemp("onnx") / f"{exporter}-{precision}"
        convert(TINY, out, parse_choice(exporter, precision, "", "cpu"))
        folders[f"{exporter} {precision}"] = out
    return folders
