"""Measure models, each in a process of its own, and turn the samples into figures."""

import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from steps.chat.threads import usable_cpus
from steps.errors import StepError
from steps.evaluation.evalset import Item

WORKER = Path(__file__).with_name("worker.py")
MAX_TOKENS = 128
SPEED = {
    "messages": [{"role": "user", "content": "Count from 1 to 40."}],  # a long answer whatever the model
    "tokens": 64,
    "least": 3,
    "most": 10,
    "seconds": 20.0,
}
_FEWEST_DECODED = 8  # an answer of fewer tokens times requests, not decoding


@dataclass(frozen=True)
class Measured:
    """A worker's result: the answers in the set's order and the raw samples (see worker.py for the units)."""

    answers: list[str]
    load_s: float
    size_bytes: int
    peak_rss_bytes: int
    ttft_s: list[float]
    decode: list[list[float]]


def measure(
    kind: Literal["model", "reference"], model: str, items: list[Item], scratch: Path, progress: Callable[[], object]
) -> Measured:
    """Run a worker to its end; the reference answers but is not timed.

    Args:
        progress: called for each answer.

    Raises:
        StepError: the worker failed or was killed.
    """
    folder = scratch / uuid.uuid4().hex
    folder.mkdir()
    job, result = folder / "job.json", folder / "result.json"
    job.write_text(
        json.dumps(
            {
                "kind": kind,
                "model": model,
                "messages": [item.messages for item in items],
                "max_tokens": MAX_TOKENS,
                "speed": SPEED if kind == "model" else None,
            }
        ),
        encoding="utf-8",
    )
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb", buffering=0) as answered:
        process = subprocess.Popen(
            [sys.executable, str(WORKER), str(job), str(result), str(writer)],
            pass_fds=(writer,),
            cwd=folder,
            # Its temporary files go with its folder; the model's code may lie in the artifact store, so no bytecode.
            env=os.environ | {"TMPDIR": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.DEVNULL,
        )
        os.close(writer)
        try:
            while answered.read(1):
                progress()
            code = process.wait()
        finally:
            process.kill()
            process.wait()
    content = json.loads(result.read_text(encoding="utf-8")) if result.exists() else {}
    shutil.rmtree(folder, ignore_errors=True)
    if code:
        cause = content.get("error") or f"its process ended with {_exit_text(code)}"
        raise StepError(f"{model} could not be evaluated: {cause}")
    return Measured(**content)


def figures(measured: Measured, items: list[Item], reference: list[str]) -> dict[str, float | None]:
    """The metrics of one model; None where the samples do not allow one.

    accuracy: share of answers that match exactly. agreement: share of answers with the reference's own text. ttft_ms:
    median. decode_tokens_per_s: median of (tokens - 1) / seconds of the samples. Memory and size in MB (10^6 bytes).
    """
    right = [item.is_right(answer) for item, answer in zip(items, measured.answers, strict=True)]
    same = [a.strip() == b.strip() for a, b in zip(measured.answers, reference, strict=True)]
    ttft = statistics.median(measured.ttft_s)
    rates = [(count - 1) / seconds for seconds, count in measured.decode if count >= _FEWEST_DECODED and seconds > 0]
    return {
        "accuracy": statistics.fmean(right),
        "agreement": statistics.fmean(same),
        "ttft_ms": 1e3 * ttft,
        "decode_tokens_per_s": statistics.median(rates) if rates else None,
        "peak_memory_mb": measured.peak_rss_bytes / 1e6,
        "size_mb": measured.size_bytes / 1e6,
        "load_s": measured.load_s,
    }


def environment(packages: dict[str, str]) -> dict[str, Any]:
    """What a figure of speed means nothing without."""
    return {
        "cpu": _cpu_model(),
        "usable_cpus": usable_cpus(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": packages,
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def _exit_text(code: int) -> str:
    if code == -signal.SIGKILL:
        return "signal 9 (killed: the machine may be out of memory)"
    return f"signal {-code}" if code < 0 else f"exit code {code}"
