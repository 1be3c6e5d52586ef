"""A stand-in for a Databricks workspace, on loopback: it answers the REST calls of the real client libraries.

It follows https://docs.databricks.com/api/workspace. It has jobs (`jobs.py`, which executes what is submitted), DBFS,
workspace files, the Files API (`handler.py`), the current user, and Unity Catalog's model registry
(`unity_catalog.py`). MLflow's tracking calls go on to a real `mlflow server`. Every call needs a token. A test can ask
for faults.
"""

import re
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from tests.fakes.databricks.errors import ApiError
from tests.fakes.databricks.handler import ORG_ID, TOKENS, Handler
from tests.fakes.databricks.jobs import Jobs
from tests.fakes.databricks.unity_catalog import USER, UnityCatalog


@dataclass
class Fault:
    """A fault of the next requests that match.

    Attributes:
        path: a regular expression, searched for in `METHOD path`.
        what: an HTTP status to answer; a number of seconds (float) to wait first; "cut" to close the connection while
            the body comes; "late" to do what was asked and close the connection without an answer.
        times: how many requests get the fault.
    """

    path: str
    what: int | str | float
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict)


class Workspace:
    """A running workspace. `requests` has "METHOD path" of every request.

    Args:
        folder: for the files: `Workspace/`, `dbfs/`, `databricks/`, `files/` (of the Files API).
        tracking: the address of the `mlflow server` behind the workspace.
    """

    def __init__(self, folder: Path, tracking: str) -> None:
        self.folder, self.tracking = folder, urlparse(tracking)
        self.requests: list[str] = []
        self.faults: list[Fault] = []
        self._lock = threading.Lock()
        # http.server constructs a handler per request, from a class: the class is the way to hand it the workspace.
        handler_class = type("WorkspaceHandler", (Handler,), {"workspace": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler_class)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.jobs = Jobs(self)
        self.catalog = UnityCatalog()
        self.routes: list[tuple[str, Callable[..., Any]]] = [
            (r"GET /\.well-known/databricks-config", lambda q: {"workspace_id": ORG_ID}),
            (r"GET /api/2\.0/preview/scim/v2/Me", lambda q: {"userName": USER, "id": "1", "active": True}),
            (r"GET /api/2\.0/dbfs/get-status", self._dbfs_status),
            (r"POST /api/2\.0/workspace/mkdirs", self._mkdirs),
            (r"GET /api/2\.0/workspace/get-status", self._workspace_status),
            (r"POST /api/2\.0/workspace/delete", self._workspace_delete),
            *self.jobs.routes(),
            *self.catalog.routes(),
        ]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop every job, and stop listening."""
        self.jobs.close()
        self._server.shutdown()
        self._server.server_close()

    def environment(self, token: str = TOKENS[0]) -> dict[str, str]:
        """Return the environment variables that a user sets to work with the workspace."""
        return {"DATABRICKS_HOST": self.url, "DATABRICKS_TOKEN": token, "MLFLOW_TRACKING_URI": "databricks"}

    def take_fault(self, request: str) -> Fault | None:
        """Return the fault that this request gets, if any."""
        with self._lock:
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.path, request):
                    fault.times -= 1
                    return fault
        return None

    def path(self, kind: str, path: str) -> Path:
        """Return the local file behind a path of the workspace; `kind` is Workspace, dbfs or files."""
        relative = path.removeprefix("/Workspace/" if kind == "Workspace" else "/").lstrip("/")
        file = (self.folder / kind / relative).resolve()
        if not file.is_relative_to((self.folder / kind).resolve()):
            raise ApiError(400, "INVALID_PARAMETER_VALUE", f"Invalid path: {path}")
        return file

    def _dbfs_status(self, query: dict[str, Any]) -> dict[str, Any]:
        file = self.path("dbfs", query["path"])
        if not file.exists():
            raise ApiError(404, "RESOURCE_DOES_NOT_EXIST", f"No file or directory exists on path {query['path']}.")
        return {"path": query["path"], "is_dir": file.is_dir(), "file_size": file.stat().st_size}

    def _mkdirs(self, query: dict[str, Any]) -> dict[str, Any]:
        self.path("Workspace", query["path"]).mkdir(parents=True, exist_ok=True)
        return {}

    def _workspace_status(self, query: dict[str, Any]) -> dict[str, Any]:
        file = self.path("Workspace", query["path"])
        if not file.exists():
            raise ApiError(404, "RESOURCE_DOES_NOT_EXIST", f"Path ({query['path']}) doesn't exist.")
        return {"path": query["path"], "object_type": "DIRECTORY" if file.is_dir() else "FILE"}

    def _workspace_delete(self, query: dict[str, Any]) -> dict[str, Any]:
        file = self.path("Workspace", query["path"])
        shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)
        return {}
