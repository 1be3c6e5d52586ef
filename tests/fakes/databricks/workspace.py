"""A stand-in for a Databricks workspace, on loopback: the REST calls that the real client libraries make.

What it speaks, after https://docs.databricks.com/api/workspace: Jobs 2.0 and 2.2 (`jobs.py`, which really executes what
is submitted), DBFS, workspace files, the Files API, the current user, Unity Catalog's model registry
(`unity_catalog.py`), and MLflow tracking, which it hands on to a real `mlflow server`. A token is required, and faults
come on demand.
"""

import email.parser
import email.policy
import http.client
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlparse

from tests.fakes.databricks.errors import ApiError
from tests.fakes.databricks.jobs import Jobs
from tests.fakes.databricks.unity_catalog import USER, UnityCatalog

ORG_ID = "1234567890"
TOKENS = ("planted-user-token", "planted-cluster-token")  # the user's own, and the one that a cluster's runtime has
_HOP = ("connection", "transfer-encoding", "content-length", "content-encoding", "host", "authorization")


@dataclass
class Fault:
    """What the next matching requests get instead of an answer.

    Attributes:
        path: a regular expression that is searched for in `METHOD path`.
        what: an HTTP status; "cut", the connection closed while the body comes; "late", the answer given but the
            connection closed before it; or seconds to wait first.
        times: how many requests.
    """

    path: str
    what: int | str | float
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict)


class Workspace:
    """A running workspace; `requests` records "METHOD path" of everything that was asked.

    Args:
        folder: what is under it: `Workspace/`, `dbfs/`, `databricks/`, `files/` (the Files API's).
        tracking: the address of the `mlflow server` behind it.
    """

    def __init__(self, folder: Path, tracking: str) -> None:
        self.folder, self.tracking = folder, urlparse(tracking)
        self.requests: list[str] = []
        self.faults: list[Fault] = []
        self._lock = threading.Lock()
        workspace = self

        class Handler(_Handler):
            pass

        Handler.workspace = workspace
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
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
        """Stop every job, and listening."""
        self.jobs.close()
        self._server.shutdown()
        self._server.server_close()

    def environment(self, token: str = TOKENS[0]) -> dict[str, str]:
        """What a user sets to work with the workspace."""
        return {"DATABRICKS_HOST": self.url, "DATABRICKS_TOKEN": token, "MLFLOW_TRACKING_URI": "databricks"}

    def take_fault(self, request: str) -> Fault | None:
        """The fault that this request gets, if any."""
        with self._lock:
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.path, request):
                    fault.times -= 1
                    return fault
        return None

    def path(self, kind: str, path: str) -> Path:
        """The local file behind a path of the workspace: kind is Workspace, dbfs or files."""
        relative = path.removeprefix("/Workspace/" if kind == "Workspace" else "/").lstrip("/")
        found = (self.folder / kind / relative).resolve()
        if not found.is_relative_to((self.folder / kind).resolve()):
            raise ApiError(400, "INVALID_PARAMETER_VALUE", f"Invalid path: {path}")
        return found

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
        import shutil

        file = self.path("Workspace", query["path"])
        shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)
        return {}


class _Handler(BaseHTTPRequestHandler):
    workspace: Workspace
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:  # noqa: N802 - the names that http.server calls
        self._handle()

    do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = do_GET

    def log_message(self, *args) -> None:
        """Quiet."""

    def _handle(self) -> None:
        address = urlparse(self.path)
        path = unquote(address.path)
        request = f"{self.command} {path}"
        self.workspace.requests.append(request)
        fault = self.workspace.take_fault(request)
        if fault and fault.what == "cut":
            self.rfile.read(min(int(self.headers.get("Content-Length", 0)), 1000))
            return self._hang_up()
        body = self._body()
        if fault and isinstance(fault.what, float):
            time.sleep(fault.what)
        if fault and isinstance(fault.what, int):
            return self._send_json(fault.what, {"error_code": "INJECTED", "message": "injected"}, fault.headers)
        try:
            if not self._is_authorised() and path != "/.well-known/databricks-config":
                raise ApiError(403, "PERMISSION_DENIED", "Invalid access token.")
            status, answer, headers = self._answer(request, path, address.query, body)
        except ApiError as error:
            status, headers = error.status, {}
            answer = {"error_code": error.code, "message": error.message}
        if fault and fault.what == "late":
            return self._hang_up()
        if isinstance(answer, bytes | Path):
            return self._send(status, answer, headers)
        return self._send_json(status, answer, headers)

    def _is_authorised(self) -> bool:
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        return kind == "Bearer" and token in TOKENS

    def _answer(self, request: str, path: str, query: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        if path.startswith("/api/2.0/fs/"):
            return self._files(path, body)
        if self.command == "POST" and path.startswith("/dbfs/"):
            file = self.workspace.path("dbfs", path.removeprefix("/dbfs"))
            if file.exists():
                raise ApiError(409, "RESOURCE_ALREADY_EXISTS", "File already exists")
            return self._write(file, body)
        if request == "POST /api/2.0/workspace/import":
            return self._import(body)
        for pattern, answer in self.workspace.routes:
            if re.fullmatch(pattern, request):
                given = {key: values[-1] for key, values in parse_qs(query).items()}
                return 200, answer(given | (json.loads(body) if body else {})), {}
        if re.match(r"/api/[23]\.0/mlflow/", path):
            return self._hand_on(body)
        raise ApiError(404, "ENDPOINT_NOT_FOUND", f"No API found for '{request}'")

    def _files(self, path: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        """The Files API: https://docs.databricks.com/api/workspace/files."""
        kind, _, rest = path.removeprefix("/api/2.0/fs/").partition("/")
        file = self.workspace.path("files", rest)
        if self.command == "PUT":
            return (
                self._write(file, body)
                if kind == "files"
                else (204, file.mkdir(parents=True, exist_ok=True) or b"", {})
            )
        if not (file.is_dir() if kind == "directories" else file.is_file()):
            raise ApiError(404, "NOT_FOUND", f"The {kind} being accessed is not found: {rest}")
        if self.command == "DELETE":
            file.rmdir() if kind == "directories" else file.unlink()
            return 204, b"", {}
        if kind == "files":
            return 200, file, {"Content-Type": "application/octet-stream", "Last-Modified": self.date_time_string()}
        if self.command == "HEAD":
            return 200, b"", {}
        contents = [
            {
                "path": f"/{rest.strip('/')}/{one.name}",
                "name": one.name,
                "is_directory": one.is_dir(),
                **({} if one.is_dir() else {"file_size": one.stat().st_size}),
            }
            for one in sorted(file.iterdir())
        ]
        return 200, {"contents": contents}, {}

    def _import(self, body: bytes) -> tuple[int, Any, dict[str, str]]:
        """workspace/import as the SDK sends it: a form of several parts."""
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        form = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
        parts = {part.get_param("name", header="content-disposition"): part for part in form.iter_parts()}
        path = parts["path"].get_payload(decode=True).decode()
        file = self.workspace.path("Workspace", path)
        if file.exists() and "overwrite" not in parts:
            raise ApiError(400, "RESOURCE_ALREADY_EXISTS", f"Path ({path}) already exists.")
        if not file.parent.is_dir():
            raise ApiError(404, "RESOURCE_DOES_NOT_EXIST", f"The parent folder ({path}) does not exist.")
        self._write(file, parts["content"].get_payload(decode=True))
        return 200, {}, {}

    def _write(self, file: Path, body: bytes) -> tuple[int, Any, dict[str, str]]:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body)
        return 200, {}, {}

    def _hand_on(self, body: bytes) -> tuple[int, Any, dict[str, str]]:
        """To the mlflow server, which calls a logged model's folder otherwise than Databricks does."""
        server = self.workspace.tracking
        connection = http.client.HTTPConnection(server.hostname, server.port, timeout=120)
        headers = {key: value for key, value in self.headers.items() if key.lower() not in _HOP}
        connection.request(self.command, quote(self.path, safe="/?&=%:+,;@#!~*'()"), body, headers)
        answer = connection.getresponse()
        content = re.sub(rb"(dbfs:/databricks/mlflow-tracking/\d+)/models/", rb"\1/logged_models/", answer.read())
        kept = {key: value for key, value in answer.getheaders() if key.lower() not in _HOP}
        return answer.status, content, kept | {"X-Databricks-Org-Id": ORG_ID}

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            chunks = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send_json(self, status: int, answer: Any, headers: dict[str, str]) -> None:
        self._send(status, json.dumps(answer).encode(), {"Content-Type": "application/json"} | headers)

    def _send(self, status: int, answer: bytes | Path, headers: dict[str, str]) -> None:
        content = answer.read_bytes() if isinstance(answer, Path) else answer
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.close()
