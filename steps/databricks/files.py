"""The project's files in a workspace: which files they are, and a folder that is named after their content."""

import hashlib
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from steps.common.disk import size_text
from steps.common.errors import StepError
from steps.databricks.retry import patiently

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

_TOP_LEVEL = ("MLproject", "conda.yaml", "README.md", "steps", "params", "tests")
# Bytes of the largest file that a workspace imports: https://docs.databricks.com/api/workspace/workspace/import
_LIMIT = 10 * 10**6
_COMPLETE = "uploaded"  # an empty file, written last: the folder has every file
_UPLOADS_AT_ONCE = 8


def project_files(root: Path) -> list[str]:
    """Return the names of the project's files, relative to its folder.

    Only what the fixed top level of the project holds counts, and no hidden file. So a tracking store, `.git` or a
    `.env` that lies in the folder never leaves this machine.
    """

    def walk(path: Path) -> Iterator[Path]:
        if path.is_file():
            yield path
        elif path.is_dir() and not path.is_symlink():
            for child in sorted(path.iterdir()):
                if not child.name.startswith(".") and child.name != "__pycache__":
                    yield from walk(child)

    return [file.relative_to(root).as_posix() for name in _TOP_LEVEL for file in walk(root / name)]


def upload_project(client: "WorkspaceClient", root: Path, user: str, bar_class: type[tqdm]) -> str:
    """Upload the project's files to a folder of the user, unless there is a folder with the same content.

    Args:
        root: the project's folder.
        user: the user's name in the workspace.
        bar_class: shows the progress in bytes.

    Returns:
        The path of the folder in the workspace.

    Raises:
        StepError: a file is larger than the workspace takes.
    """
    contents = {name: (root / name).read_bytes() for name in project_files(root)}
    _check_sizes(contents)
    folder = f"/Workspace/Users/{user}/.phi-mlflow/{_digest(contents)[:16]}"
    if _exists(client, f"{folder}/{_COMPLETE}"):
        return folder
    for parent in sorted({str(Path(folder, name).parent) for name in contents}):
        patiently(client, partial(client.workspace.mkdirs, parent))
    size = sum(map(len, contents.values()))
    with (
        bar_class(total=size, unit="B", unit_scale=True, desc="uploading the project") as bar,
        ThreadPoolExecutor(max_workers=_UPLOADS_AT_ONCE) as pool,
    ):
        paths = [f"{folder}/{name}" for name in contents]
        for sent in pool.map(partial(_send, client), paths, contents.values()):
            bar.update(sent)
    _send(client, f"{folder}/{_COMPLETE}", b"")
    return folder


def _check_sizes(contents: dict[str, bytes]) -> None:
    """Raise StepError if a file is too large for a workspace."""
    for name, content in contents.items():
        if len(content) > _LIMIT:
            raise StepError(
                f"{name} has {size_text(len(content))}, and a file in a workspace has at most {size_text(_LIMIT)}: log "
                "the file to MLflow and use its runs:/ URI, or submit from a git URL (source=https://...)"
            )


def _digest(contents: dict[str, bytes]) -> str:
    """Return the SHA-256 (hex) of all names and contents."""
    digest = hashlib.sha256()
    for name, content in contents.items():
        digest.update(f"{name}\0{hashlib.sha256(content).hexdigest()}\n".encode())
    return digest.hexdigest()


def _exists(client: "WorkspaceClient", path: str) -> bool:
    """Return whether the workspace has this file."""
    from databricks.sdk.errors import NotFound

    try:
        patiently(client, lambda: client.workspace.get_status(path))
    except NotFound:
        return False
    return True


def _send(client: "WorkspaceClient", path: str, content: bytes) -> int:
    """Write a file of the workspace, in place of an earlier file; return its size in bytes."""
    from databricks.sdk.service.workspace import ImportFormat

    def attempt() -> None:  # each attempt reads the stream from its start
        client.workspace.upload(path, io.BytesIO(content), format=ImportFormat.RAW, overwrite=True)

    patiently(client, attempt)
    return len(content)
