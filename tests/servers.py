"""Real servers on loopback for the tests: a tracking server of MLflow's, PostgreSQL, and S3 by moto."""

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

ADMIN, PASSWORD = "admin", "planted-Pa55word-9"  # of the tracking server that asks for one


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextlib.contextmanager
def serve(folder: Path, *arguments: str, store: str = "", port: int = 0, **env: str) -> Iterator[str]:
    """The address of a tracking server.

    Args:
        arguments: of `mlflow server`: where artifacts go, and what else is not as it is by default.
        store: the address of its database; by default a SQLite file in the folder.
        port: to listen on; by default a free one.
        env: environment variables for it.
    """
    port = port or free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    with (folder / "log").open("a") as log:
        process = subprocess.Popen(
            [*command, "--backend-store-uri", store or f"sqlite:///{folder}/mlflow.db", *arguments],
            cwd=folder,
            env=os.environ | env,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{url}/health", timeout=5).read()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((folder / "log").read_text()) from None
                time.sleep(0.2)
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def basic_auth(folder: Path) -> dict[str, str]:
    """What `mlflow server --app-name basic-auth` finds in its environment, with ADMIN and PASSWORD.

    https://mlflow.org/docs/latest/self-hosting/security/basic-http-auth/
    """
    config = folder / "basic_auth.ini"
    lines = {
        "default_permission": "READ",
        "database_uri": f"sqlite:///{folder}/basic_auth.db",
        "admin_username": ADMIN,
        "admin_password": PASSWORD,
        "authorization_function": "mlflow.server.auth:authenticate_request_basic_auth",
    }
    config.write_text("[mlflow]\n" + "".join(f"{key} = {value}\n" for key, value in lines.items()))
    return {"MLFLOW_AUTH_CONFIG_PATH": str(config), "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex()}


@contextlib.contextmanager
def s3() -> Iterator[dict[str, str]]:
    """The environment in which boto3 and MLflow find an S3-compatible server that has the empty bucket `phi`."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    env = {
        "MLFLOW_S3_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ENDPOINT_URL_S3": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "planted-key-id",
        "AWS_SECRET_ACCESS_KEY": "planted-aws-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    session = boto3.Session(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], region_name="us-east-1")
    session.client("s3", endpoint_url=env["MLFLOW_S3_ENDPOINT_URL"]).create_bucket(Bucket="phi")
    try:
        yield env
    finally:
        server.stop()


def postgres_programs() -> Path | None:
    """The folder of PostgreSQL's server programs, where there is one."""
    found = [Path(path).parent for path in (shutil.which("initdb"),) if path]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in found if (folder / "initdb").is_file()), None)


@contextlib.contextmanager
def postgres(programs: Path) -> Iterator[str]:
    """The address of a database `mlflow` of a PostgreSQL server, which asks for its user's password."""
    password = "planted-db-password"
    folder = Path(tempfile.mkdtemp(prefix="phi-mlflow-postgres-"))  # not pytest's, which no other user may enter
    given = folder / "password"
    given.write_text(password)
    who = {}
    if os.getuid() == 0:  # as whom it refuses to run
        shutil.chown(folder, "postgres")
        shutil.chown(given, "postgres")
        who = {"user": "postgres", "group": "postgres", "extra_groups": []}
    quiet = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **who}
    init = ["--username=mlflow", f"--pwfile={given}", "--auth=scram-sha-256", "--encoding=UTF8", "--no-sync"]
    port = free_port()
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
    control = [str(programs / "pg_ctl"), "-D", str(folder / "data"), "-w"]
    try:
        subprocess.run([str(programs / "initdb"), "-D", str(folder / "data"), *init], check=True, **quiet)
        subprocess.run([*control, "-l", str(folder / "log"), "-o", options, "start"], check=True, **quiet)
        import psycopg2

        connection = psycopg2.connect(f"postgresql://mlflow:{password}@127.0.0.1:{port}/postgres")
        connection.autocommit = True
        connection.cursor().execute("CREATE DATABASE mlflow")
        connection.close()
        yield f"postgresql://mlflow:{password}@127.0.0.1:{port}/mlflow"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=False, **quiet)
        shutil.rmtree(folder, ignore_errors=True)
