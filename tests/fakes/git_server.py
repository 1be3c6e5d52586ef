"""Git repositories over real HTTP on loopback, as a hosting service gives them: git's own CGI program behind a server.

git-http-backend(1): the repositories lie under GIT_PROJECT_ROOT, GIT_HTTP_EXPORT_ALL exports them all, PATH_INFO says
which is asked for, and a compressed request body is told by HTTP_CONTENT_ENCODING. RFC 3875 has the other variables.
"""

import base64
import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

_TIMEOUT = 60  # seconds a request


class GitServer:
    """A running server of the bare repositories in a folder; a context manager.

    `requests` records (method, path, whether it carried the right credentials).
    """

    def __init__(self, folder: Path, credentials: tuple[str, str] | None = None) -> None:
        """
        Args:
            credentials: the user and token without which the answer is 401; None for a public server.
        """
        self.requests: list[tuple[str, str, bool]] = []

        class Handler(_Handler):
            pass

        Handler.requests = self.requests
        Handler.folder = folder
        Handler.expected = f"Basic {base64.b64encode(':'.join(credentials).encode()).decode()}" if credentials else ""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.address}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> "GitServer":
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    requests: list[tuple[str, str, bool]]
    folder: Path
    expected: str
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:  # noqa: N802 - the name that http.server calls
        self._answer()

    def do_POST(self) -> None:  # noqa: N802
        self._answer()

    def log_message(self, *args) -> None:
        """Quiet."""

    def _answer(self) -> None:
        body = self._body()
        address = urlsplit(self.path)
        authorised = self.headers.get("Authorization", "") == self.expected
        self.requests.append((self.command, address.path, authorised))
        if not authorised:
            return self._send(401, {"WWW-Authenticate": 'Basic realm="git"'}, b"")
        done = subprocess.run(
            ["git", "http-backend"],
            input=body,
            env={
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": str(self.folder),
                "GIT_HTTP_EXPORT_ALL": "1",
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                "REQUEST_METHOD": self.command,
                "PATH_INFO": unquote(address.path),
                "QUERY_STRING": address.query,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "CONTENT_LENGTH": str(len(body)),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "REMOTE_ADDR": self.client_address[0],
            },
            capture_output=True,
            check=False,
            timeout=_TIMEOUT,
        )
        head, separator, content = done.stdout.partition(b"\r\n\r\n")
        if not separator:
            return self._send(500, {}, done.stderr)
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        return self._send(int(headers.pop("Status", "200").split()[0]), headers, content)

    def _body(self) -> bytes:
        """The request's body, whole; git sends a large one in chunks."""
        if self.headers.get("Transfer-Encoding", "") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():  # trailers
            pass
        return b"".join(parts)

    def _send(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
