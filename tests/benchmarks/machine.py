"""What the benchmarks share: the environment beside every figure, progress, and the memory of a child process."""

import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def environment(*packages: str) -> dict[str, Any]:
    """Return the machine, and the versions of Python and of packages. They are written beside the samples."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0],
        "usable_cpus": len(os.sched_getaffinity(0)),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
    }


def log(progress: object) -> None:
    """Print progress to stderr at once."""
    print(progress, file=sys.stderr, flush=True)


def run_and_watch(arguments: list[str]) -> dict[str, Any]:
    """Run Python in a child process, and watch its memory.

    Args:
        arguments: of Python. The last line of the child's output must be a JSON object.

    Returns:
        The JSON object, with `wall_s` (seconds) and `peak_rss_anon_bytes`. If the child fails, `failed` is its exit
        code. RssAnon is the kernel's count of resident anonymous memory (/proc/PID/status, proc(5)), read every 10 ms.
        Mapped files are not in it, because the kernel can drop them.
    """
    start = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    peak = 0
    while child.poll() is None:
        peak = max(peak, _rss_anon(child.pid))
        time.sleep(0.01)
    output, _ = child.communicate()
    result: dict[str, Any]
    result = {"failed": child.returncode} if child.returncode else json.loads(output.strip().splitlines()[-1])
    return result | {"peak_rss_anon_bytes": peak, "wall_s": time.perf_counter() - start}


def _rss_anon(pid: int) -> int:
    """Return the resident anonymous memory of a process in bytes; 0 where the process has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return max([0] + [1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")])
