"""Check that the model's files are the ones that were logged."""

import hashlib
import json
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypedDict

from mlflow.exceptions import MlflowException

_BLOCK = 8 << 20  # bytes read at a time
_verified: set[tuple[str, int, int]] = set()  # path, size and modification time of the files that this process hashed


class _LoggedFile(TypedDict):
    path: str  # relative to the folder
    size: int  # bytes
    sha256: str


def start_check(folder: Path, checksums: Path, shown: str = "onnx/") -> "Future[None]":
    """Compare the sizes of the files at once, and their SHA-256 in a thread while the model is loaded.

    Args:
        folder: that the paths are relative to.
        checksums: a JSON list of {"path", "size", "sha256"}.
        shown: what an error writes before the path of a file.

    Returns:
        The comparison by SHA-256. Its result() raises MlflowException if a file differs.

    Raises:
        MlflowException: a file is missing or has another size.
    """
    logged_files: list[_LoggedFile] = json.loads(checksums.read_text(encoding="utf-8"))
    for logged in logged_files:
        path = folder / logged["path"]
        size = path.stat().st_size if path.is_file() else None
        if size != logged["size"]:
            state = "is missing" if size is None else f"has {size} bytes"
            raise _damaged(shown + logged["path"], f"{state}, and {logged['size']} were logged")
    pool = ThreadPoolExecutor(1, thread_name_prefix="checksum")
    future = pool.submit(_hash_all, folder, logged_files, shown)
    pool.shutdown(wait=False)
    return future


def _hash_all(folder: Path, logged_files: list[_LoggedFile], shown: str) -> None:
    for logged in logged_files:
        path = folder / logged["path"]
        state = (str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns)
        if state in _verified:
            continue
        digest = hashlib.sha256()
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
        if digest.hexdigest() != logged["sha256"]:
            raise _damaged(shown + logged["path"], "does not have the SHA-256 that was logged")
        _verified.add(state)


def _damaged(name: str, difference: str) -> MlflowException:
    return MlflowException(f"the model's file {name} {difference}: it is damaged; download or log the model again")
