"""Whether the files are those that were logged."""

import hashlib
import json
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from mlflow.exceptions import MlflowException

_BLOCK = 8 << 20
_verified: set[tuple[str, int, int]] = set()


def start_check(folder: Path, checksums: Path) -> "Future[None]":
    """Compare the files with what was logged, while the model is loaded: hashing takes another core, and no lock.

    Sizes are compared at once. A file that this process has hashed before is not hashed again.

    Args:
        checksums: a JSON list of {"path", "size", "sha256"}.

    Returns:
        The comparison, which raises MlflowException where a file differs.

    Raises:
        MlflowException: a file is missing, or its size is another.
    """
    expected = json.loads(checksums.read_text(encoding="utf-8"))
    for entry in expected:
        path = folder / entry["path"]
        size = path.stat().st_size if path.is_file() else None
        if size != entry["size"]:
            has = "is missing" if size is None else f"has {size} bytes"
            raise _damaged(entry["path"], f"{has}, and {entry['size']} were logged")
    pool = ThreadPoolExecutor(1, thread_name_prefix="checksum")
    future = pool.submit(_hash_all, folder, expected)
    pool.shutdown(wait=False)
    return future


def _hash_all(folder: Path, expected: list[dict]) -> None:
    for entry in expected:
        path = folder / entry["path"]
        state = (str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns)
        if state in _verified:
            continue
        digest = hashlib.sha256()
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
        if digest.hexdigest() != entry["sha256"]:
            raise _damaged(entry["path"], "does not have the SHA-256 that was logged")
        _verified.add(state)


def _damaged(name: str, how: str) -> MlflowException:
    return MlflowException(f"the model's file onnx/{name} {how}: it is damaged; download or log the model again")
