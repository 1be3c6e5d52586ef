"""Git repositories over real HTTP on loopback, as on a hosting service: a server in front of git's own CGI program.

git-http-backend(1) explains the variables of the program. The repositories are under GIT_PROJECT_ROOT.
GIT_HTTP_EXPORT_ALL exports all of them. PATH_INFO names the file that is asked for. HTTP_CONTENT_ENCODING says that
the request's body is compressed. RFC 3875 explains the other variables.
"""

import base64
import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

_TIMEOUT = 300  # seconds for a request


class GitServer:
    """A running server of the bare repositories in a folder; a context manager.

    Attributes:
        requests: (method, path, whether the request had the right credentials) of each request so far.
        address: host and port.
        url: the address as a URL.
    """

    def __init__(self, folder: Path, credentials: tuple[str, str] | None = None) -> None:
        """
        Args:
            credentials: the user and the token that a request needs; None for a public server.
        """
        self.requests: list[tuple[str, str, bool]] = []

        class Handler(_Handler):  # http.server makes a handler for each request, so what they share is in their class
            requests = self.requests
            repositories = folder
            authorisation = _basic_authorisation(*credentials) if credentials else ""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.address}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    requests: list[tuple[str, str, bool]]
    repositories: Path
    authorisation: str  # the header that a request needs
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""

    def _answer(self) -> None:
        body = self._body()
        path = urlsplit(self.path).path
        authorised = self.headers.get("Authorization", "") == self.authorisation
        self.requests.append((self.command, path, authorised))
        if not authorised:
            return self._send(401, {"WWW-Authenticate": 'Basic realm="git"'}, b"")
        done = subprocess.run(
            ["git", "http-backend"],
            input=body,
            env=self._cgi_variables(len(body)),
            capture_output=True,
            check=False,
            timeout=_TIMEOUT,
        )
        head, separator, content = done.stdout.partition(b"\r\n\r\n")
        if not separator:
            return self._send(500, {}, done.stderr)
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        return self._send(int(headers.pop("Status", "200").split()[0]), headers, content)

    def _cgi_variables(self, body_bytes: int) -> dict[str, str]:
        address = urlsplit(self.path)
        return {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.repositories),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REQUEST_METHOD": self.command,
            "PATH_INFO": unquote(address.path),
            "QUERY_STRING": address.query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(body_bytes),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "REMOTE_ADDR": self.client_address[0],
        }

    def _body(self) -> bytes:
        """Return the request's body. Git sends a large body in chunks."""
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


def _basic_authorisation(user: str, token: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{token}'.encode()).decode()}"
