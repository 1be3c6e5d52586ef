"""Thousands of requests, many of them broken, given up, or without a client after kill -9: what the server does.

The model is the shipped one in float32, whose greedy answers are known: they do not depend on what else is in a step.
"""

import json
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, TypedDict

import psutil
import requests

from tests.benchmarks.machine import ROOT, log
from tests.benchmarks.serve_processes import Running, gauge, this_project

_PROCESSES, _EACH = 4, 300  # client processes at a time; requests of each
_SAMPLES = 40  # of memory
_TEXTS = ("The capital of", "What is", "Question:", "12 + 7 =", "Paris is the")


class MemorySample(TypedDict):
    """Resident memory of the server after a number of requests."""

    requests: int
    rss_bytes: int


class AbuseResult(TypedDict):
    """What became of all requests."""

    requests: int  # that the server has counted
    wrong: list[str]
    statuses: dict[str, int]  # status -> requests, as the server counts them
    failures: int  # requests with a status of 500 or more, without 503 and 504
    killed: int  # client processes
    aborted: float  # answers that were given up
    running: float  # rows in use at the end
    seconds: float
    memory: list[MemorySample]


def measure_abuse(model: Path, count: int, seed: int = 0) -> AbuseResult:
    """Send at least `count` requests to a server of its own.

    Args:
        model: the MLflow model of the shipped checkpoint in float32.
    """
    with (
        this_project(model, {"SERVING_MODEL_CONFIG": '{"threads": 1}'}) as server,
        tempfile.TemporaryDirectory() as folder,
    ):
        known = Path(folder) / "known.json"
        known.write_text(json.dumps(known_answers(server.url)))
        clients = _Clients(server, known, random.Random(seed))
        memory: list[MemorySample] = []
        start = time.perf_counter()
        while (done := sum(statuses(server.url).values())) < count:
            if done >= len(memory) * count / _SAMPLES:
                memory.append(MemorySample(requests=done, rss_bytes=psutil.Process(server.pid).memory_info().rss))
                log(memory[-1] | {"wrong": len(clients.wrong), "killed": clients.killed})
            clients.step()
            time.sleep(0.1)
        clients.stop()
        wait_until_idle(server.url)
        seconds = time.perf_counter() - start
        by_status = statuses(server.url)
        memory.append(MemorySample(requests=done, rss_bytes=psutil.Process(server.pid).memory_info().rss))
        return AbuseResult(
            requests=sum(by_status.values()),
            wrong=clients.wrong,
            statuses=by_status,
            failures=sum(n for status, n in by_status.items() if int(status) >= 500 and status not in ("503", "504")),
            killed=clients.killed,
            aborted=gauge(server.url, "phi_request_aborted_total"),
            running=gauge(server.url, "phi_requests_running"),
            seconds=seconds,
            memory=memory,
        )


class _Clients:
    """The client processes: started, killed at random times, and started again."""

    def __init__(self, server: Running, known: Path, generator: random.Random) -> None:
        self._server, self._known, self._random = server, known, generator
        self._processes: list[subprocess.Popen[str]] = []
        self.wrong: list[str] = []
        self.killed = 0

    def step(self) -> None:
        """Replace the processes that have ended, and kill one now and then."""
        self._processes = [process for process in self._processes if process.poll() is None]
        while len(self._processes) < _PROCESSES:
            self._processes.append(self._start())
        if self._random.random() < 0.05:
            self._kill(self._random.choice(self._processes))

    def stop(self) -> None:
        """Kill all."""
        for process in self._processes:
            self._kill(process)

    def _start(self) -> subprocess.Popen[str]:
        arguments = [self._server.url, str(self._known), str(self._random.randrange(1 << 30)), str(_EACH)]
        command = [sys.executable, "-m", "tests.benchmarks.serve_abuser", *arguments]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=sys.stderr, text=True)
        threading.Thread(target=self._read, args=(process,), daemon=True).start()
        return process

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout  # a pipe
        for line in process.stdout:
            if line.endswith("\n"):  # a killed process may leave half a line
                report: dict[str, Any] = json.loads(line)
                if report["wrong"]:
                    self.wrong.append(f"{report['kind']}: {report['wrong']}")

    def _kill(self, process: subprocess.Popen[str]) -> None:
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.killed += 1


def known_answers(url: str) -> dict[str, dict[str, str]]:
    """Return the answers that the model was trained to give, and its continuations of texts, asked one by one."""
    lines = (ROOT / "params" / "evalsets" / "tiny-qa.jsonl").read_text(encoding="utf-8").splitlines()
    rows, text = [json.loads(line) for line in lines], {}
    chat = {row["messages"][-1]["content"]: row["expected"] for row in rows}
    for prompt in _TEXTS:
        body = {"prompt": prompt, "max_tokens": 8, "temperature": 0}
        text[prompt] = requests.post(f"{url}/v1/completions", json=body, timeout=60).json()["choices"][0]["text"]
    return {"chat": chat, "text": text}


def statuses(url: str) -> dict[str, int]:
    """Return how many POST requests the server has answered with each status."""
    text = requests.get(f"{url}/metrics", timeout=60).text
    counted: dict[str, int] = {}
    for status, number in re.findall(r'^phi_http_requests_total\{method="POST".*status="(\d+)"\} (\S+)$', text, re.M):
        counted[status] = counted.get(status, 0) + int(float(number))
    return counted


def wait_until_idle(url: str, seconds: float = 30.0) -> None:
    """Wait until no answer is in work, or until the time is over: what is left then has leaked."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and (gauge(url, "phi_requests_running") or gauge(url, "phi_requests_waiting")):
        time.sleep(0.1)
