"""Record the machine and the package versions that a speed figure depends on."""

import platform
import threading
import time
from pathlib import Path

import numpy as np

from steps.chat.runtime.cpus import usable_cpus
from steps.evaluation.method import Machine

_READ_BYTES = 1 << 29  # more than any cache holds


def describe_machine(packages: dict[str, str]) -> Machine:
    """Return a description of this machine. Its memory bandwidth is measured, which takes about a second.

    Args:
        packages: the version of each package that speed depends on.
    """
    return Machine(
        cpu=_cpu_model(),
        usable_cpus=usable_cpus(),
        platform=platform.platform(),
        python=platform.python_version(),
        packages=packages,
        memory_bandwidth_gb_s=memory_bandwidth() / 1e9,
    )


def memory_bandwidth() -> float:
    """Return the bytes a second that one thread for each usable CPU reads from memory; the median of five runs."""
    parts = np.array_split(np.ones(_READ_BYTES // 8), usable_cpus())
    rates = []
    for _ in range(5):
        threads = [threading.Thread(target=np.sum, args=(part,)) for part in parts]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rates.append(_READ_BYTES / (time.perf_counter() - start))
    return float(np.median(rates))


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"
