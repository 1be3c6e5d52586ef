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
import threading
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
            # Without its queue of jobs, which nothing here asks for: seven processes, each with all imports.
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | env,
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


class Cutting:
    """A way to a server that is cut when `after` bytes have been sent on it, as often as `times` says.

    Attributes:
        url: the address that takes it.
        cut: how often it was.
    """

    def __init__(self, server: str, after: int, times: int) -> None:
        self.cut, self._after, self._times = 0, after, times
        self._there = ("127.0.0.1", int(server.rpartition(":")[2]))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._there)
                threading.Thread(target=self._pass_on, args=(near, far, True), daemon=True).start()
                threading.Thread(target=self._pass_on, args=(far, near, False), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        sent = 0
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sent += len(data)
                if counted and sent > self._after and self.cut < self._times:
                    self.cut += 1
                    break
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


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
        "auth_cache_ttl_seconds": "3600",  # or every request of thousands computes a slow hash
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
        import psycopg

        with psycopg.connect(
            f"postgresql://mlflow:{password}@127.0.0.1:{port}/postgres", autocommit=True
        ) as connection:
            connection.execute("CREATE DATABASE mlflow")
        yield f"postgresql://mlflow:{password}@127.0.0.1:{port}/mlflow"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=False, **quiet)
        shutil.rmtree(folder, ignore_errors=True)
