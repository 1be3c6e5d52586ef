"""Hash files, and describe them by size and SHA-256."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from steps.common.documents import Part

_BLOCK = 1 << 20  # bytes read at a time


class FileEntry(Part):
    """One file of a folder: its name relative to the folder, its size in bytes and its SHA-256 (hex)."""

    path: str
    size: int
    sha256: str


def sha256(path: Path, progress: Callable[[int], object] = lambda count: None) -> str:
    """Return the SHA-256 of a file as hex digits.

    Args:
        progress: called with the number of bytes of each block that was hashed.
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
            progress(len(block))
    return digest.hexdigest()


def describe_files(
    folder: Path, names: Iterable[str], progress: Callable[[int], object] = lambda count: None
) -> tuple[FileEntry, ...]:
    """Return an entry for each named file of a folder."""
    return tuple(
        FileEntry(path=name, size=(folder / name).stat().st_size, sha256=sha256(folder / name, progress))
        for name in names
    )


def total_size(files: Iterable[FileEntry]) -> int:
    """Return the bytes of all files together."""
    return sum(file.size for file in files)
