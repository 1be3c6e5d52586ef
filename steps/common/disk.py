"""Disk space: worked out before it is used."""

import shutil
from pathlib import Path

from steps.common.errors import StepError


def need_space(what: str, needs: list[tuple[Path, int]]) -> None:
    """Refuse to start what would fill a disk.

    Args:
        needs: folders, which need not exist yet, and the bytes wanted in each; those on one disk add up.

    Raises:
        StepError: a disk has less free.
    """
    disks: dict[int, tuple[Path, int]] = {}
    for folder, needed in needs:
        while not folder.exists():
            folder = folder.parent
        first, sum_ = disks.get(folder.stat().st_dev, (folder, 0))
        disks[folder.stat().st_dev] = (first, sum_ + needed)
    for folder, needed in disks.values():
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise StepError(
                f"{what} needs {size_text(needed)} on the disk of {folder}, which has {size_text(free)} free: free "
                "some space, or move TMPDIR (temporary files), HF_HOME (downloads) or the artifact store to another"
            )


def size_text(count: int) -> str:
    """Bytes for a person: 3.4 MB."""
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
