#!/usr/bin/env python3
"""How long `main` takes on the tiny profile, cold and again, and what it leaves behind.

Measures, in a fresh clone of this checkout's HEAD, from an empty tracking store, with the environment already built:
wall time of a cold `mlflow run . --env-manager uv` and of a second one with nothing changed, each --reps times in
turn; the child runs that the second starts; `git status` afterwards; the bytes in the artifact store against the budget
(the checkpoint once, the ONNX folder twice).

Usage: python tests/benchmarks/pipeline.py OUT.json [--reps N]      (mlflow and uv on PATH)

OUT.json holds the raw samples and the environment; the figures are printed.
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
from pathlib import Path

ROOT = Path(__file__).parents[2]


def timed_main(project: Path) -> float:
    """Seconds of one `mlflow run`, as a user sees them."""
    start = time.perf_counter()
    subprocess.run(["mlflow", "run", ".", "--env-manager", "uv"], cwd=project, check=True, capture_output=True)
    return time.perf_counter() - start


def run_count(project: Path) -> int:
    """Runs in the default store of `project`: each child process of main is one."""
    with sqlite3.connect(project / "mlflow.db") as store:
        return store.execute("select count(*) from runs").fetchone()[0]


def folder_size(folder: Path) -> int:
    """Bytes of all the files under a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def measure_once(scratch: Path) -> dict:
    """One clone: a cold main, a second one, and what is there afterwards."""
    project = scratch / "phi-mlflow"
    shutil.rmtree(project, ignore_errors=True)
    subprocess.run(["git", "clone", "-q", str(ROOT), str(project)], check=True)
    cold = timed_main(project)
    before = run_count(project)
    store = folder_size(project / "mlruns")
    second = timed_main(project)
    onnx = next((project / "mlruns").glob("*/*/artifacts/onnx"))
    status = subprocess.run(["git", "status", "--porcelain"], cwd=project, check=True, capture_output=True, text=True)
    return {
        "cold_s": cold,
        "second_s": second,
        "second_child_runs": run_count(project) - before - 1,
        "git_status": status.stdout,
        "store_bytes": store,
        "budget_bytes": folder_size(project / "params" / "tiny-phi3") + 2 * folder_size(onnx),
    }


def environment() -> dict:
    """The machine, as far as it matters here."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {"cpu": model[0], "usable_cpus": len(os.sched_getaffinity(0)), "platform": platform.platform()}


def main() -> None:
    """Warm up (the environment, and Python's bytecode), measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--reps", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        measure_once(Path(scratch))
        samples = [measure_once(Path(scratch)) for _ in range(args.reps)]
    args.out.write_text(json.dumps({"environment": environment(), "samples": samples}, indent=2) + "\n")

    def median(name: str) -> float:
        return statistics.median(sample[name] for sample in samples)

    print(f"cold main       {median('cold_s'):6.1f} s")
    print(f"second main     {median('second_s'):6.1f} s, {median('second_child_runs'):.0f} child runs")
    print(f"artifact store  {median('store_bytes') / 1e6:6.2f} MB, budget {median('budget_bytes') / 1e6:.2f} MB")
    print(f"git status      {'clean' if not any(sample['git_status'] for sample in samples) else 'NOT clean'}")


if __name__ == "__main__":
    main()
