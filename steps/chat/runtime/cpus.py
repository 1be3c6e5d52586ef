"""Count the CPUs that this process may really use."""

import math
import os
from pathlib import Path


def usable_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the number of CPUs of the CPU affinity, but not more than the cgroup's quota allows; at least 1.

    ONNX Runtime counts physical cores by itself: too few on virtual machines, and too many in containers.
    The quota is `cpu.max` of cgroup v2, or `cpu.cfs_quota_us` and `cpu.cfs_period_us` of v1
    (https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files).
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(affinity, _quota(cgroup))))


def _quota(cgroup: Path) -> float:
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return math.inf
    return math.inf if quota in ("max", "-1") else int(quota) / int(period)
