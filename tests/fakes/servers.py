"""Real servers on loopback for the tests: MLflow's tracking server, PostgreSQL, and S3 by moto."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ADMIN, PASSWORD = "admin", "planted-Pa55word-9"  # of the tracking server that asks for a password
DATABASE_PASSWORD = "planted-db-password"
_START_TIMEOUT = 600  # seconds


def free_port() -> int:
    """Return a port of loopback on which no process listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def tracking_server(
    folder: Path, *arguments: str, store: str = "", port: int = 0, env: dict[str, str] | None = None
) -> Iterator[str]:
    """Run a tracking server, and yield its address.

    Args:
        folder: for the server's log, and for its database by default.
        arguments: of `mlflow server`, such as where artifacts go.
        store: the address of the server's database; by default a SQLite file in the folder.
        port: the port to listen on; by default a free port.
        env: more environment variables for the server.
    """
    port = port or free_port()
    log = folder / "log"
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    with log.open("a") as output:
        process = subprocess.Popen(
            [*command, "--backend-store-uri", store or f"sqlite:///{folder}/mlflow.db", *arguments],
            cwd=folder,
            # No test uses the server's queue of jobs, which is seven processes with all imports.
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | (env or {}),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for_health(url, process, log)
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def _wait_for_health(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when the server answers. Raise RuntimeError with its log if its process ends, or after two minutes."""
    deadline = time.monotonic() + _START_TIMEOUT
    while True:
        try:
            urllib.request.urlopen(f"{url}/health", timeout=5).read()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(log.read_text()) from None
            time.sleep(0.2)


def basic_auth(folder: Path) -> dict[str, str]:
    """Return the environment in which `mlflow server --app-name basic-auth` has the user ADMIN with PASSWORD.

    https://mlflow.org/docs/latest/self-hosting/security/basic-http-auth/
    """
    config = folder / "basic_auth.ini"
    settings = {
        "default_permission": "READ",
        "database_uri": f"sqlite:///{folder}/basic_auth.db",
        "admin_username": ADMIN,
        "admin_password": PASSWORD,
        "authorization_function": "mlflow.server.auth:authenticate_request_basic_auth",
        "auth_cache_ttl_seconds": "3600",  # without it, each of thousands of requests computes a slow hash
    }
    config.write_text("[mlflow]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items()))
    return {"MLFLOW_AUTH_CONFIG_PATH": str(config), "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex()}


@contextlib.contextmanager
def s3() -> Iterator[dict[str, str]]:
    """Run an S3-compatible server with the empty bucket `phi`.

    Yield the environment in which boto3 and MLflow find it.
    """
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    env = {
        "MLFLOW_S3_ENDPOINT_URL": url,
        "AWS_ENDPOINT_URL_S3": url,
        "AWS_ACCESS_KEY_ID": "planted-key-id",
        "AWS_SECRET_ACCESS_KEY": "planted-aws-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    session = boto3.Session(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], region_name="us-east-1")
    session.client("s3", endpoint_url=url).create_bucket(Bucket="phi")
    try:
        yield env
    finally:
        server.stop()


def postgres_programs() -> Path | None:
    """Return the folder of PostgreSQL's server programs, or None where PostgreSQL is not installed."""
    on_path = [Path(program).parent for program in (shutil.which("initdb"),) if program]
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in (*on_path, *debian) if (folder / "initdb").is_file()), None)


@contextlib.contextmanager
def postgres(programs: Path) -> Iterator[str]:
    """Run a PostgreSQL server that asks for a password, and yield the address of its empty database `mlflow`."""
    import psycopg

    folder = Path(tempfile.mkdtemp(prefix="phi-mlflow-postgres-"))  # another user may not enter pytest's folders
    password_file = folder / "password"
    password_file.write_text(DATABASE_PASSWORD)
    if os.getuid() == 0:  # PostgreSQL does not run as root
        shutil.chown(folder, "postgres")
        shutil.chown(password_file, "postgres")
    port = free_port()
    address = f"postgresql://mlflow:{DATABASE_PASSWORD}@127.0.0.1:{port}"
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
    init = ["--username=mlflow", f"--pwfile={password_file}", "--auth=scram-sha-256", "--encoding=UTF8", "--no-sync"]
    control = [str(programs / "pg_ctl"), "-D", str(folder / "data"), "-w"]
    try:
        _run_as_postgres([str(programs / "initdb"), "-D", str(folder / "data"), *init], folder)
        _run_as_postgres([*control, "-l", str(folder / "log"), "-o", options, "start"], folder)
        with psycopg.connect(f"{address}/postgres", autocommit=True) as connection:
            connection.execute("CREATE DATABASE mlflow")
        yield f"{address}/mlflow"
    finally:
        _run_as_postgres([*control, "-m", "immediate", "stop"], folder, check=False)
        shutil.rmtree(folder, ignore_errors=True)


def _run_as_postgres(command: list[str], folder: Path, check: bool = True) -> None:
    """Run one of PostgreSQL's programs: as the user postgres where this process is root."""
    as_root = os.getuid() == 0
    subprocess.run(
        command,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=check,
        user="postgres" if as_root else None,
        group="postgres" if as_root else None,
        extra_groups=[] if as_root else None,
    )
