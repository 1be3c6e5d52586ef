"""Facts about this process."""

import resource
from pathlib import Path


def peak_rss() -> int:
    """Return the largest resident memory that this process had so far, in bytes. Mapped files count."""
    # On Linux, ru_maxrss starts with the parent process's memory. VmHWM is of this process alone.
    try:
        status = Path("/proc/self/status").read_text()
        return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):  # macOS, where getrusage counts bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
