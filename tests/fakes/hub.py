"""A small Hugging Face hub over real HTTP on loopback: the calls that huggingface_hub makes, and faults on demand.

Endpoints (https://huggingface.co/docs/hub/api): GET /api/models/{repo}/revision/{rev}, and HEAD and GET of
/{repo}/resolve/{rev}/{path} with ETag, X-Repo-Commit, X-Linked-Size and Range.
"""

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse


@dataclass
class Repo:
    """One repository: its files, and what its revisions name."""

    files: dict[str, bytes]
    revisions: dict[str, str]
    gated: bool = False
    declared_sizes: dict[str, int] = field(default_factory=dict)  # what the listing says, where it should lie


class Hub:
    """A running hub. `requests` records (method, path, Range header); `cut_after` cuts the next weights download."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.cut_after: int | None = None  # bytes, once
        self.failures: list[int] = []  # statuses to answer with first
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
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

    def do_GET(self) -> None:  # noqa: N802 - the name that http.server calls
        self._answer(body=True)

    def do_HEAD(self) -> None:  # noqa: N802
        self._answer(body=False)

    def log_message(self, *args) -> None:
        """Quiet."""

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
        repo = self.hub.repos.get(name)
        authorised = self.headers.get("Authorization") == "Bearer right-token"
        if not repo:  # the real hub does not tell a missing repository from a private one
            self._send(401, {"X-Error-Code": "RepoNotFound"}, b"", body)
        elif repo.gated and not authorised:
            self._send(401, {"X-Error-Code": "GatedRepo"}, b"", body)
        elif revision not in repo.revisions and revision not in repo.revisions.values():
            self._send(404, {"X-Error-Code": "RevisionNotFound"}, b"", body)
        else:
            return repo, repo.revisions.get(revision, revision)
        return None

    def _info(self, name: str, revision: str, body: bool) -> None:
        if not (found := self._find(name, revision, body)):
            return
        repo, commit = found
        siblings = []
        for path, content in repo.files.items():
            entry = {
                "rfilename": path,
                "size": repo.declared_sizes.get(path, len(content)),
                "blobId": _git_sha(content),
            }
            if path.endswith(".safetensors"):
                entry["lfs"] = {"sha256": _sha(content), "size": entry["size"], "pointerSize": 130}
            siblings.append(entry)
        info = {"id": name, "modelId": name, "sha": commit, "siblings": siblings, "private": False, "tags": []}
        self._send(200, {"Content-Type": "application/json"}, json.dumps(info).encode(), body)

    def _file(self, name: str, revision: str, path: str, body: bool) -> None:
        if not (found := self._find(name, revision, body)):
            return
        repo, commit = found
        if path not in repo.files:
            return self._send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, b"", body)
        content = repo.files[path]
        weights = path.endswith(".safetensors")
        headers = {
            "X-Repo-Commit": commit,
            "ETag": f'"{_sha(content) if weights else _git_sha(content)}"',
            "X-Linked-Size": str(len(content)),
            "Accept-Ranges": "bytes",
        }
        status, start = 200, 0
        if wanted := self.headers.get("Range"):
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            status, headers["Content-Range"] = 206, f"bytes {start}-{len(content) - 1}/{len(content)}"
        cut = self.hub.cut_after if body and weights else None
        if cut is not None:
            self.hub.cut_after = None
        return self._send(status, headers, content[start:], body, cut)

    def _send(self, status: int, headers: dict[str, str], content: bytes, body: bool, cut: int | None = None) -> None:
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
