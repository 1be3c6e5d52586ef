"""How the stand-in answers an HTTP request."""

import email.parser
import email.policy
import http.client
import json
import re
import time
from email.message import MIMEPart
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, unquote, urlparse

from tests.fakes.databricks.errors import ApiError

if TYPE_CHECKING:
    from tests.fakes.databricks.workspace import Workspace

ORG_ID = "1234567890"
TOKENS = ("planted-user-token", "planted-cluster-token")  # of the user, and of a cluster's runtime
_HOP = ("connection", "transfer-encoding", "content-length", "content-encoding", "host", "authorization")


class Handler(BaseHTTPRequestHandler):
    """Answers one request: authorisation, faults, the Files API, and the routes of the workspace."""

    workspace: "Workspace"
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:  # noqa: N802 - the names that http.server calls
        self._handle()

    do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = do_GET

    def log_message(self, *args) -> None:
        """Write nothing."""

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
                arguments = {key: values[-1] for key, values in parse_qs(query).items()}
                return 200, answer(arguments | (json.loads(body) if body else {})), {}
        if re.match(r"/api/[23]\.0/mlflow/", path):
            return self._hand_on(body)
        raise ApiError(404, "ENDPOINT_NOT_FOUND", f"No API found for '{request}'")

    def _files(self, path: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        """Answer a call of the Files API: https://docs.databricks.com/api/workspace/files."""
        kind, _, rest = path.removeprefix("/api/2.0/fs/").partition("/")
        file = self.workspace.path("files", rest)
        if self.command == "PUT":
            if kind == "files":
                return self._write(file, body)
            file.mkdir(parents=True, exist_ok=True)
            return 204, b"", {}
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
                "path": f"/{rest.strip('/')}/{child.name}",
                "name": child.name,
                "is_directory": child.is_dir(),
                **({} if child.is_dir() else {"file_size": child.stat().st_size}),
            }
            for child in sorted(file.iterdir())
        ]
        return 200, {"contents": contents}, {}

    def _import(self, body: bytes) -> tuple[int, Any, dict[str, str]]:
        """Answer workspace/import, which the SDK sends as a form of several parts."""
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        form = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
        parts = {part.get_param("name", header="content-disposition"): part for part in form.iter_parts()}
        path = _content(parts["path"]).decode()
        file = self.workspace.path("Workspace", path)
        if file.exists() and "overwrite" not in parts:
            raise ApiError(400, "RESOURCE_ALREADY_EXISTS", f"Path ({path}) already exists.")
        if not file.parent.is_dir():
            raise ApiError(404, "RESOURCE_DOES_NOT_EXIST", f"The parent folder ({path}) does not exist.")
        self._write(file, _content(parts["content"]))
        return 200, {}, {}

    def _write(self, file: Path, body: bytes) -> tuple[int, Any, dict[str, str]]:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body)
        return 200, {}, {}

    def _hand_on(self, body: bytes) -> tuple[int, Any, dict[str, str]]:
        """Pass a call on to the mlflow server, and name the folders of logged models as Databricks does."""
        server = self.workspace.tracking
        connection = http.client.HTTPConnection(server.hostname or "", server.port, timeout=600)
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


def _content(part: MIMEPart) -> bytes:
    """Return the content of a part of a form."""
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    return content
