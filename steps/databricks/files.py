"""The project's files in a workspace: which they are, and a folder of them there, named after their content."""

import hashlib
import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from steps.common.disk import size_text
from steps.common.errors import StepError
from steps.databricks.retry import patiently

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

_TOP = ("MLproject", "conda.yaml", "README.md", "steps", "params", "tests")
# Bytes of a file that the workspace imports: https://docs.databricks.com/api/workspace/workspace/import
_LIMIT = 10 * 10**6
_WHOLE = "uploaded"  # an empty file, written last


def project_files(root: Path) -> list[str]:
    """The files that are the project, relative to its root: what its fixed top level holds, and nothing beside.

    So neither a tracking store, nor `.git`, nor a `.env` that somebody keeps here leaves this machine.
    """

    def walk(path: Path) -> Iterator[Path]:
        if path.is_file():
            yield path
        elif path.is_dir() and not path.is_symlink():
            for child in sorted(path.iterdir()):
                if not child.name.startswith(".") and child.name != "__pycache__":
                    yield from walk(child)

    return [file.relative_to(root).as_posix() for name in _TOP for file in walk(root / name)]


def upload(
    client: "WorkspaceClient", root: Path, names: list[str], home: str, progress: Callable[[int], object]
) -> str:
    """Bring the files into a folder of the workspace, unless it has that content already; the folder.

    Args:
        home: the workspace folder under which it is put.
        progress: called with the bytes of each file when it has been sent.

    Raises:
        StepError: a file is larger than the workspace takes.
    """
    from databricks.sdk.errors import NotFound
    from databricks.sdk.service.workspace import ImportFormat

    contents = {name: (root / name).read_bytes() for name in names}
    for name, content in contents.items():
        if len(content) > _LIMIT:
            raise StepError(
                f"{name} has {size_text(len(content))}, and a workspace file at most {size_text(_LIMIT)}: log it to "
                "MLflow and give its runs:/ URI, or submit from a git URL (source=https://...)"
            )
    digest = hashlib.sha256()
    for name, content in contents.items():
        digest.update(f"{name}\0{hashlib.sha256(content).hexdigest()}\n".encode())
    folder = f"{home}/{digest.hexdigest()[:16]}"
    try:
        patiently(client, lambda: client.workspace.get_status(f"{folder}/{_WHOLE}"))
    except NotFound:
        pass
    else:
        return folder
    for parent in sorted({str(Path(folder, name).parent) for name in names}):
        patiently(client, lambda parent=parent: client.workspace.mkdirs(parent))

    def send(name: str) -> None:
        def once() -> None:
            stream = io.BytesIO(contents[name])
            client.workspace.upload(f"{folder}/{name}", stream, format=ImportFormat.RAW, overwrite=True)

        patiently(client, once)
        progress(len(contents[name]))

    with ThreadPoolExecutor(max_workers=8) as pool:
        for _ in pool.map(send, names):
            pass
    contents[_WHOLE] = b""
    send(_WHOLE)
    return folder
