"""A small Hugging Face hub over real HTTP on loopback: the endpoints that huggingface_hub calls, and faults on demand.

The endpoints (https://huggingface.co/docs/hub/api):
- GET /api/models/{repo}/revision/{revision} lists the files of a repository.
- HEAD and GET of /{repo}/resolve/{revision}/{path} give a file, with ETag, X-Repo-Commit, X-Linked-Size and Range.
"""

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlparse

TOKEN = "right-token"  # opens gated repositories


@dataclass
class Repo:
    """One repository of the hub."""

    files: dict[str, bytes]
    revisions: dict[str, str]  # branch or tag -> commit, 40 hex digits
    gated: bool = False  # whether a request needs TOKEN
    declared_sizes: dict[str, int] = field(default_factory=dict)  # path -> bytes, where the listing is to be wrong


class Hub:
    """A running hub.

    Attributes:
        url: the address.
        repos: name -> repository.
        requests: (method, path, Range header) of each request so far.
        cut_after: the bytes after which the next download of weights is cut; None for no cut.
        failures: HTTP statuses with which the next requests fail.
    """

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.cut_after: int | None = None
        self.failures: list[int] = []

        class Handler(_Handler):  # http.server makes a handler for each request, so what they share is in their class
            hub = self

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""

    def _answer(self, body: bool) -> None:
        path = unquote(urlparse(self.path).path)
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        if self.hub.failures:
            return self._send(self.hub.failures.pop(0), {}, b"", body)
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"] and len(parts) >= 6 and parts[4] == "revision":
            return self._info("/".join(parts[2:4]), "/".join(parts[5:]), body)
        if len(parts) >= 5 and parts[2] == "resolve":
            return self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]), body)
        return self._send(404, {}, b"", body)

    def _find(self, name: str, revision: str, body: bool) -> tuple[Repo, str] | None:
        """Return a repository and the commit of a revision. Answer with an error and return None if there is none."""
        repo = self.hub.repos.get(name)
        authorised = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if not repo:  # the real hub gives the same answer for a missing and for a private repository
            self._send(401, {"X-Error-Code": "RepoNotFound"}, b"", body)
        elif repo.gated and not authorised:
            self._send(401, {"X-Error-Code": "GatedRepo"}, b"", body)
        elif revision not in repo.revisions and revision not in repo.revisions.values():
            self._send(404, {"X-Error-Code": "RevisionNotFound"}, b"", body)
        else:
            return repo, repo.revisions.get(revision, revision)
        return None

    def _info(self, name: str, revision: str, body: bool) -> None:
        if not (repo_and_commit := self._find(name, revision, body)):
            return
        repo, commit = repo_and_commit
        siblings = []
        for path, content in repo.files.items():
            size = repo.declared_sizes.get(path, len(content))
            entry: dict[str, Any] = {"rfilename": path, "size": size, "blobId": _git_sha(content)}
            if path.endswith(".safetensors"):
                entry["lfs"] = {"sha256": _sha(content), "size": size, "pointerSize": 130}
            siblings.append(entry)
        info = {"id": name, "modelId": name, "sha": commit, "siblings": siblings, "private": False, "tags": []}
        self._send(200, {"Content-Type": "application/json"}, json.dumps(info).encode(), body)

    def _file(self, name: str, revision: str, path: str, body: bool) -> None:
        if not (repo_and_commit := self._find(name, revision, body)):
            return
        repo, commit = repo_and_commit
        if path not in repo.files:
            return self._send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, b"", body)
        content = repo.files[path]
        is_weights = path.endswith(".safetensors")
        headers = {
            "X-Repo-Commit": commit,
            "ETag": f'"{_sha(content) if is_weights else _git_sha(content)}"',
            "X-Linked-Size": str(len(content)),
            "Accept-Ranges": "bytes",
        }
        status, start = 200, 0
        if byte_range := self.headers.get("Range"):
            start = int(byte_range.removeprefix("bytes=").split("-")[0])
            status, headers["Content-Range"] = 206, f"bytes {start}-{len(content) - 1}/{len(content)}"
        cut = self.hub.cut_after if body and is_weights else None
        if cut is not None:
            self.hub.cut_after = None
        return self._send(status, headers, content[start:], body, cut)

    def _send(self, status: int, headers: dict[str, str], content: bytes, body: bool, cut: int | None = None) -> None:
        """Answer; without the content for HEAD, and with its first `cut` bytes only where the download is cut."""
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content[:cut])
        if cut is not None:
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _git_sha(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
