"""Every status that the server gives, provoked once, in OpenAI's shape."""

import socket
import threading

import pytest
import requests

from steps.serving.keys import FILE_VARIABLE, KEY_VARIABLE
from steps.serving.limits import Limits
from tests.serving.harness import FRANCE, LONG, running

pytestmark = pytest.mark.model
CHAT = "/v1/chat/completions"


def check(response: requests.Response, status: int, code: str | None, param: str | None = None) -> dict:
    """Check the shape of an error, and return its content."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "\n" not in error["message"]
    assert (error["code"], error["param"]) == (code, param)
    assert response.headers["x-request-id"]
    return error


def test_400(server):
    check(server.post(CHAT, {"messages": FRANCE, "temperature": 9}), 400, "invalid_value", "temperature")
    check(server.post(CHAT, {"messages": FRANCE, "stream": "yes"}), 400, "invalid_value", "stream")
    check(server.post(CHAT, [1]), 400, "invalid_json")
    too_long = [{"role": "user", "content": "word " * 9000}]
    check(server.post(CHAT, {"messages": too_long}), 400, "context_length_exceeded", "messages")
    for text in (b"{", b'{"messages": NaN}', b"\xff\xfe", b"[" * 100_000):
        response = requests.post(server.url + CHAT, data=text, headers={"Content-Type": "application/json"}, timeout=60)
        check(response, 400, "invalid_json")


def test_a_stream_is_refused_with_a_status_and_not_inside_the_stream(server):
    response = server.post(CHAT, {"messages": FRANCE, "stream": True, "n": 99})
    check(response, 400, "invalid_value", "n")
    assert response.headers["content-type"] == "application/json"


def test_401_and_the_two_ways_to_give_a_key(custom, monkeypatch, tmp_path):
    file = tmp_path / "keys"
    file.write_text("key-of-a-team  # the team\n\nanother-long-key\n")
    monkeypatch.setenv(FILE_VARIABLE, str(file))
    monkeypatch.setenv(KEY_VARIABLE, "key-of-the-environment")
    with running(custom) as server:
        refused = server.post(CHAT, {"messages": FRANCE}, headers={"Authorization": "Bearer wrong-key-x"})
        check(refused, 401, "invalid_api_key")
        assert refused.headers["www-authenticate"] == "Bearer"
        check(server.get("/metrics"), 401, "invalid_api_key")
        for path in ("/health", "/ping", "/"):
            assert server.get(path).status_code == 200
        anthropic = server.post("/v1/messages", {}).json()
        assert anthropic["error"]["type"] == "authentication_error"
        for key in ("key-of-a-team", "another-long-key", "key-of-the-environment"):
            assert server.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code == 200
            assert server.get("/v1/models", headers={"x-api-key": key}).status_code == 200


def test_403_for_a_page_that_reaches_loopback_by_another_name(server):
    check(server.get("/v1/models", headers={"Host": "evil.example"}), 403, "host_not_allowed")


def test_404(server):
    check(server.get("/v2/everything"), 404, "not_found")
    check(server.post(CHAT, {"model": "gpt-5", "messages": FRANCE}), 404, "model_not_found", "model")


def test_405(server):
    for response in (server.get(CHAT), requests.options(server.url + CHAT, timeout=60)):
        check(response, 405, "method_not_allowed")
        assert response.headers["allow"] == "POST"
        assert "access-control-allow-origin" not in response.headers
    assert requests.head(f"{server.url}/health", timeout=60).status_code == 200


def test_408_and_413(custom):
    with running(custom, Limits(body_mb=0.1, body_s=0.3)) as server:
        check(server.post(CHAT, {"messages": FRANCE, "user": "x" * 200_000}), 413, "body_too_large")
        parts = (b"x" * 50_000 for _ in range(4))  # without Content-Length
        json = {"Content-Type": "application/json"}
        check(requests.post(server.url + CHAT, data=parts, headers=json, timeout=60), 413, "body_too_large")
        with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as slow:
            slow.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
            assert b"408" in slow.recv(100)


def test_415(server):
    response = requests.post(server.url + CHAT, data="{}", headers={"Content-Type": "text/plain"}, timeout=60)
    check(response, 415, "unsupported_media_type")


def test_501_and_not_to_try_again(server):
    response = server.post("/v1/embeddings", {"input": "x"})
    check(response, 501, "not_supported")
    assert response.headers["x-should-retry"] == "false"


UNKNOWN = {
    CHAT: ({"messages": FRANCE, "max_token": 1}, "max_token", "max_tokens"),
    "/v1/completions": ({"prompt": "a", "max_token": 1}, "max_token", "max_tokens"),
    "/v1/responses": ({"input": "a", "max_output_token": 1}, "max_output_token", "max_output_tokens"),
    "/tokenize": ({"promt": "a"}, "promt", "prompt"),
    "/detokenize": ({"token": [1]}, "token", "tokens"),
}


@pytest.mark.parametrize("path", UNKNOWN)
def test_an_unknown_field_is_refused_with_the_nearest_name(server, path):
    body, param, nearest = UNKNOWN[path]
    error = check(server.post(path, body), 400, "invalid_value", param)
    assert f"did you mean {nearest}?" in error["message"]


def test_a_refusal_has_the_name_that_the_protocol_gives_the_field(server):
    response = server.post("/v1/responses", {"input": "a", "max_output_tokens": 0})
    assert "max_output_tokens" in check(response, 400, "invalid_value", "max_output_tokens")["message"]
    response = server.post("/v1/responses", {"input": [{"role": "wizard", "content": "a"}]})
    check(response, 400, "invalid_value", "input[0].role")
    message = {"messages": FRANCE, "max_tokens": 9, "stop_sequences": [1]}
    assert server.post("/v1/messages", message).json()["error"]["message"].startswith("stop_sequences")


def test_429_tells_when_to_try_again(custom):
    with running(custom, Limits(requests=1)) as server:
        with requests.post(server.url + CHAT, json=LONG | {"stream": True}, stream=True, timeout=60):
            response = server.post(CHAT, {"messages": FRANCE})
            check(response, 429, "too_many_requests")
            assert int(response.headers["retry-after"]) >= 1
        server.wait_until_idle()
        assert server.post(CHAT, {"messages": FRANCE}).status_code == 200


def test_503_while_loading_and_draining(custom):
    with running(None) as server:
        for path in ("/health", "/v1/models"):
            response = server.get(path)
            check(response, 503, "loading")
            assert int(response.headers["retry-after"]) >= 1
        assert server.get("/ping").status_code == 503
        server.context.live.current = custom
        assert server.get("/health").json() == {"status": "ok"}
        server.context.live.draining = True
        check(server.get("/health"), 503, "draining")
        check(server.post(CHAT, {"messages": FRANCE}), 503, "draining")


def test_504_ends_the_answer_and_asks_not_to_retry(custom):
    with running(custom, Limits(request_s=0.3)) as server:
        response = server.post(CHAT, LONG)
        check(response, 504, "timeout")
        assert response.headers["x-should-retry"] == "false"
        server.wait_until_idle()


def test_limits_on_fields(custom):
    with running(custom, Limits(messages=2, tokens=10)) as server:
        check(server.post(CHAT, {"messages": FRANCE * 3}), 400, "too_many_messages", "messages")
        check(server.post(CHAT, {"messages": FRANCE, "max_tokens": 11}), 400, "too_many_tokens", "max_tokens")


def test_500_half_sent_requests_are_closed_and_hold_nobody_up(custom):
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\n"
    with running(custom, Limits(body_s=2.0)) as server:
        address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
        sockets = [socket.create_connection(address) for _ in range(500)]
        for number, half in enumerate(sockets):
            half.sendall(head + b'{"messages"' if number % 2 else head[: 20 + number % 30])
        assert server.post(CHAT, {"messages": FRANCE}).status_code == 200
        for number, half in enumerate(sockets):
            half.settimeout(60)
            received = b""
            while piece := half.recv(4096):
                received += piece
            assert received.startswith(b"HTTP/1.1 408") if number % 2 else received == b""
            half.close()
        assert server.gauge("phi_requests_running") == 0


def test_many_requests_at_once_are_all_answered(server):
    statuses = []

    def ask() -> None:
        statuses.append(server.post(CHAT, {"messages": FRANCE, "max_tokens": 3}).status_code)

    threads = [threading.Thread(target=ask) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 40
    server.wait_until_idle()
