"""Start what serve.py compares, each as a user starts it, and stop it again."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from steps.chat.runtime.cpus import usable_cpus
from tests.benchmarks.machine import ROOT
from tests.fakes.servers import free_port

_SECONDS_TO_START = 300
_CONTEXT = 1024  # tokens of a request of llama.cpp's server


@dataclass(frozen=True)
class Running:
    """A server."""

    url: str
    pid: int


@contextlib.contextmanager
def this_project(model: Path, env: dict[str, str] | None = None) -> Iterator[Running]:
    """Run the entry point `serve` on an MLflow model, with a tracking store of its own."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        own = {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
        command = [sys.executable, "-m", "steps.serve", f"--model={model}", f"--port={port}"]
        with _process(command, f"http://127.0.0.1:{port}", "/health", Path(folder), own | (env or {})) as running:
            yield running


@contextlib.contextmanager
def mlflow_models_serve(model: Path) -> Iterator[Running]:
    """Run `mlflow models serve` in this environment."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(model), "-p", str(port)]
    with (
        tempfile.TemporaryDirectory() as folder,
        _process(
            [*command, "--env-manager", "local"], f"http://127.0.0.1:{port}", "/ping", Path(folder), {}
        ) as running,
    ):
        yield running


@contextlib.contextmanager
def llama_server(programs: Path, model: Path, clients: int) -> Iterator[Running]:
    """Run llama.cpp's server: a slot for each client, a thread for each CPU, no cache beside the slots.

    Args:
        programs: the folder of llama.cpp's programs.
    """
    port, threads = free_port(), str(usable_cpus())
    command = [str(programs / "llama-server"), "-m", str(model), "--host", "127.0.0.1", "--port", str(port)]
    command += ["-np", str(clients), "-c", str(clients * _CONTEXT), "-t", threads, "-tb", threads, "--cache-ram", "0"]
    with (
        tempfile.TemporaryDirectory() as folder,
        _process(command, f"http://127.0.0.1:{port}", "/health", Path(folder), {}) as running,
    ):
        yield running


@contextlib.contextmanager
def _process(command: list[str], url: str, path: str, folder: Path, env: dict[str, str]) -> Iterator[Running]:
    """Run a server until the block ends.

    Args:
        path: answers 200 as soon as the server is ready.
        folder: where the server stands, with its log.
    """
    log = folder / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=os.environ | env, stdout=output, stderr=output, start_new_session=True
        )
    try:
        end = time.monotonic() + _SECONDS_TO_START
        while not _is_ready(url + path):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{' '.join(command)} did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.1)
        yield Running(url, process.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _is_ready(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).status_code == 200
    except requests.exceptions.RequestException:
        return False


InProcess = Callable[[Sequence[Sequence[Sequence[int]]], int, float, bool], dict[str, Any]]


@contextlib.contextmanager
def engine_in_process(model: Path) -> Iterator[InProcess]:
    """Run serve_engine.py.

    Yields:
        A function of (prompts of each client, new tokens, gap, stream) that returns a round's sample.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.serve_engine", str(model)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin and process.stdout  # both are pipes
    questions, answers = process.stdin, process.stdout
    if not answers.readline():
        raise RuntimeError("serve_engine.py did not start")

    def time_round(prompts: Sequence[Sequence[Sequence[int]]], new: int, gap: float, stream: bool) -> dict[str, Any]:
        request = {"prompts": prompts, "new": new, "gap": gap, "stream": stream}
        print(json.dumps(request), file=questions, flush=True)
        sample: dict[str, Any] = json.loads(answers.readline())
        return sample

    try:
        yield time_round
    finally:
        questions.close()
        process.wait()


def gauge(url: str, name: str) -> float:
    """Return a figure of this project's /metrics."""
    text = requests.get(f"{url}/metrics", timeout=60).text
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    if not found:
        raise RuntimeError(f"/metrics has no {name}")
    return float(found[1])
