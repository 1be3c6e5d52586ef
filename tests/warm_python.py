"""Run a module of the project in a new process that has MLflow imported already.

A step is a process, and most of its time on the shipped model is the import of MLflow: 6 of 7 seconds. The tests start
some 300 steps. A process that has imported MLflow, and nothing of the project, forks instead:

    tests ──(arguments, folder, environment, stdout, stderr)──► server ─fork─► keeper ─fork─► the module, as __main__
      ▲                                                                           │
      └──────────────────────────── exit code ────────────────────────────────────┘

The module sees its own arguments, folder, environment and files, and ends as a program ends: its exit handlers run.
The tests that start `mlflow run`, or that send signals, start a new interpreter.
"""

import atexit
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import BinaryIO

_WARM = ("mlflow", "mlflow.pyfunc", "mlflow.store.tracking.sqlalchemy_store", "mlflow.store.db.utils", "jinja2")


def run(arguments: list[str], folder: Path, env: dict[str, str], timeout: float) -> tuple[int, str, str]:
    """Run `python -m ARGUMENTS` in a folder and an environment. Return its exit code, stdout and stderr.

    The code is negative if a signal ended it, as in `subprocess`.

    Raises:
        TimeoutError: it took longer than `timeout` seconds. It goes on.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout)
        connection.connect(_server())
        request = json.dumps({"arguments": arguments, "folder": str(folder), "env": env}).encode()
        socket.send_fds(connection, [len(request).to_bytes(4)], [out.fileno(), err.fileno()])
        connection.sendall(request)
        code = int(connection.recv(16))
        return code, _text(out), _text(err)


def _text(file: BinaryIO) -> str:
    file.seek(0)
    return file.read().decode().replace("\r\n", "\n").replace("\r", "\n")  # as subprocess does for text


@cache
def _server() -> str:
    """Start the server of this process. Return the path of its socket."""
    path = str(Path(tempfile.mkdtemp(prefix="phi-mlflow-warm-")) / "socket")
    process = subprocess.Popen(
        [sys.executable, __file__, path], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    atexit.register(process.kill)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return path


def _wait_for_requests(path: str) -> socket.socket:
    """Answer each connection with a new process. Return in that process, with the connection."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        print("ready", flush=True)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that keepers leave no zombies
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                return connection
            connection.close()


def _become(connection: socket.socket) -> list[str]:
    """Turn a fork of this process, the keeper, into what a request asks for. Return its arguments in the fork.

    The keeper itself waits for the fork, sends its exit code, and ends.
    """
    head, (out, err), _, _ = socket.recv_fds(connection, 4, 2)
    with connection.makefile("rb") as stream:
        request = json.loads(stream.read(int.from_bytes(head)))
    if (process := os.fork()) != 0:
        _, status = os.waitpid(process, 0)
        connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    connection.close()
    for file, standard in ((out, 1), (err, 2)):
        os.dup2(file, standard)
        os.close(file)
    os.chdir(request["folder"])
    sys.path[:] = [entry for entry in sys.path if entry not in _search_path(os.environ)]
    os.environ.clear()
    os.environ.update(request["env"])
    sys.path[:0] = [request["folder"], *_search_path(os.environ)]
    return request["arguments"]


def _search_path(env: Mapping[str, str]) -> list[str]:
    return [entry for entry in env.get("PYTHONPATH", "").split(os.pathsep) if entry]


if __name__ == "__main__":
    del sys.path[0]  # this folder: its databricks/ and others would hide packages of that name
    for name in _WARM:
        importlib.import_module(name)
    sys.argv = _become(_wait_for_requests(sys.argv[1]))
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
