"""An OpenAI-compatible endpoint on loopback that judges every answer alike."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextlib.contextmanager
def judge(verdict: Callable[[str], str] = lambda request: "yes", status: int = 200) -> Iterator[tuple[str, list[dict]]]:
    """Run a judge. Yield its URL, and the requests that it got.

    Args:
        verdict: returns "yes" or "no" for the text of a request.
        status: of HTTP.
    """
    requests: list[dict] = []

    class Judge(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            content = json.dumps({"result": verdict(json.dumps(requests[-1])), "rationale": "as expected"})
            choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            answer = {"id": "1", "object": "chat.completion", "created": 1, "model": "judge", "choices": [choice]}
            body = json.dumps(answer | {"usage": usage}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Judge)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", requests
    finally:
        server.shutdown()
        server.server_close()
