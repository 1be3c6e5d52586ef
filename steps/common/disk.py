"""Disk space: check that it is enough before a step writes."""

import shutil
from pathlib import Path

from steps.common.errors import StepError


def need_space(purpose: str, needs: list[tuple[Path, int]]) -> None:
    """Raise StepError if a disk has less free space than is needed.

    Args:
        purpose: what the space is for, as the subject of the error: "converting X to int4".
        needs: folders, with the bytes that are written to each. A folder need not exist yet. Needs on one disk add up.
    """
    disks: dict[int, tuple[Path, int]] = {}  # device -> the first folder on it, and the bytes of all folders on it
    for folder, size in needs:
        while not folder.exists():
            folder = folder.parent
        device = folder.stat().st_dev
        first_folder, total = disks.get(device, (folder, 0))
        disks[device] = (first_folder, total + size)
    for folder, total in disks.values():
        free = shutil.disk_usage(folder).free
        if free < total:
            raise StepError(
                f"{purpose} needs {size_text(total)} on the disk of {folder}, which has {size_text(free)} free: free "
                "space, or move TMPDIR (temporary files), HF_HOME (downloads) or the artifact store to another disk"
            )


def size_text(count: int) -> str:
    """Return a number of bytes for a person, such as 3.4 MB."""
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
