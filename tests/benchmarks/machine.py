"""What the benchmarks share: the environment that stands beside every figure, and a child whose memory is watched."""

import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]


def environment(*packages: str) -> dict:
    """The machine, and the versions of what is measured."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": model[0],
        "usable_cpus": len(os.sched_getaffinity(0)),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
    }


def watched(arguments: list[str]) -> dict:
    """Run a Python child whose last line of output is JSON; add to that its wall time and its peak RssAnon.

    RssAnon is the kernel's count of resident anonymous memory (/proc/PID/status, proc(5)), read every 10 ms: mapped
    files, which the kernel can drop, are not in it. Seconds, bytes.
    """
    start = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    peak = 0
    while child.poll() is None:
        try:
            status = Path(f"/proc/{child.pid}/status").read_text()
        except OSError:
            continue
        peak = max([peak] + [1024 * int(row.split()[1]) for row in status.splitlines() if row.startswith("RssAnon")])
        time.sleep(0.01)
    output = child.stdout.read().strip().splitlines()
    if child.returncode:
        return {"failed": child.returncode, "peak_rss_anon_bytes": peak, "wall_s": time.perf_counter() - start}
    return json.loads(output[-1]) | {"peak_rss_anon_bytes": peak, "wall_s": time.perf_counter() - start}
