"""What a figure of speed means nothing without."""

import platform
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from steps.chat.runtime.cpus import usable_cpus

_READ = 1 << 29  # bytes, more than any cache holds


def environment(packages: dict[str, str]) -> dict[str, Any]:
    """The machine and the versions; `memory_bandwidth_gb_s` as measured now."""
    return {
        "cpu": _cpu_model(),
        "usable_cpus": usable_cpus(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": packages,
        "memory_bandwidth_gb_s": memory_bandwidth() / 1e9,
    }


def memory_bandwidth() -> float:
    """Bytes a second that as many threads as there are usable CPUs read of memory; the median of five."""
    parts = np.array_split(np.ones(_READ // 8), usable_cpus())
    rates = []
    for _ in range(5):
        threads = [threading.Thread(target=np.sum, args=(part,)) for part in parts]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rates.append(_READ / (time.perf_counter() - start))
    return float(np.median(rates))


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"
