#!/usr/bin/env python3
"""Measure how long `main` takes on the tiny profile, cold and again, and what it leaves behind.

A user waits for the cold run once, and for the second after each edit. The second shows what reuse saves.

A fresh clone of this checkout's HEAD is made --reps times, with an empty tracking store; the environment is built
already. Measured for each clone:
- the wall time of a cold `mlflow run . --env-manager uv`, and of a second one with nothing changed
- how many child runs the second one starts
- `git status` afterwards
- the bytes in the artifact store, beside its budget: the checkpoint once, the ONNX folder twice

Output: OUT.json holds the raw samples and the environment. The medians are printed.

Usage: python tests/benchmarks/pipeline.py OUT.json [--reps N]      (mlflow and uv on PATH)
"""

import argparse
import json
import os
import platform
import shutil
import sqlite3
import statistics
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Sample:
    """What was measured in one clone."""

    cold_s: float
    second_s: float
    second_child_runs: int
    git_status: str
    store_bytes: int
    budget_bytes: int


def timed_main(project: Path) -> float:
    """Return the seconds of one `mlflow run`, as a user sees them."""
    start = time.perf_counter()
    subprocess.run(["mlflow", "run", ".", "--env-manager", "uv"], cwd=project, check=True, capture_output=True)
    return time.perf_counter() - start


def run_count(project: Path) -> int:
    """Return the number of runs in the default store of a project. Each child process of main is a run."""
    with sqlite3.connect(project / "mlflow.db") as store:
        return store.execute("select count(*) from runs").fetchone()[0]


def folder_size(folder: Path) -> int:
    """Return the bytes of all files under a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def measure_once(scratch: Path) -> Sample:
    """Make a clone, run a cold main and a second one, and look at what is there afterwards."""
    project = scratch / "phi-mlflow"
    shutil.rmtree(project, ignore_errors=True)
    subprocess.run(["git", "clone", "-q", str(ROOT), str(project)], check=True)
    cold_s = timed_main(project)
    runs_before = run_count(project)
    store_bytes = folder_size(project / "mlruns")
    second_s = timed_main(project)
    onnx = next((project / "mlruns").glob("*/*/artifacts/onnx"))
    status = subprocess.run(["git", "status", "--porcelain"], cwd=project, check=True, capture_output=True, text=True)
    return Sample(
        cold_s=cold_s,
        second_s=second_s,
        second_child_runs=run_count(project) - runs_before - 1,  # main itself is a run
        git_status=status.stdout,
        store_bytes=store_bytes,
        budget_bytes=folder_size(project / "params" / "tiny-phi3") + 2 * folder_size(onnx),
    )


def environment() -> dict[str, str | int]:
    """Return the machine. This script runs outside the project's environment, so it can't import machine.py's."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {"cpu": models[0], "usable_cpus": len(os.sched_getaffinity(0)), "platform": platform.platform()}


def print_medians(samples: list[Sample]) -> None:
    """Print the medians, a line for each target."""

    def median(name: str) -> float:
        return statistics.median(getattr(sample, name) for sample in samples)

    print(f"cold main       {median('cold_s'):6.1f} s")
    print(f"second main     {median('second_s'):6.1f} s, {median('second_child_runs'):.0f} child runs")
    print(f"artifact store  {median('store_bytes') / 1e6:6.2f} MB, budget {median('budget_bytes') / 1e6:.2f} MB")
    print(f"git status      {'NOT clean' if any(sample.git_status for sample in samples) else 'clean'}")


def main() -> None:
    """Warm up (the environment, and Python's bytecode), measure, write OUT.json, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--reps", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        measure_once(Path(scratch))
        samples = [measure_once(Path(scratch)) for _ in range(args.reps)]
    content = {"environment": environment(), "samples": [asdict(sample) for sample in samples]}
    args.out.write_text(json.dumps(content, indent=2) + "\n")
    print_medians(samples)


if __name__ == "__main__":
    main()
