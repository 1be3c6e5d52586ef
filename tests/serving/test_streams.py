"""Streams: their bytes, their pings, their errors, and what happens when a client goes away."""

import json
import subprocess
import sys
import threading
import time

import pytest
import requests

from steps.serving.answers import ServiceAnswer
from steps.serving.errors import ApiError
from steps.serving.limits import Limits
from tests.serving.harness import FRANCE, LONG, running

pytestmark = pytest.mark.model
CHAT = "/v1/chat/completions"


def test_the_bytes_and_headers_of_a_stream(server):
    response = server.post(CHAT, {"messages": FRANCE, "stream": True}, headers={"x-request-id": "mine-1"})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-accel-buffering"] == "no"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-request-id"] == "mine-1"
    *events, end = response.text.split("\n\n")
    assert end == ""
    assert events[-1] == "data: [DONE]"
    assert all(json.loads(event.removeprefix("data: "))["object"] == "chat.completion.chunk" for event in events[:-1])


def test_the_choices_of_a_stream_are_interleaved(server):
    body = {
        "messages": FRANCE,
        "stream": True,
        "n": 2,
        "temperature": 1,
        "seed": 1,
        "ignore_eos": True,
        "max_tokens": 8,
    }
    events = [line[6:] for line in server.post(CHAT, body).text.splitlines() if line.startswith("data: {")]
    indexes = [json.loads(event)["choices"][0]["index"] for event in events]
    assert indexes != sorted(indexes)


@pytest.fixture
def slow_answer(monkeypatch):
    """Answers whose second chunk comes after a while, and then an error."""

    def chunks(self, wake):
        yield next(self._chunks)
        threading.Timer(0.5, wake).start()
        yield {}  # nothing is there yet
        raise ApiError(500, "the disk is gone", "internal_error")

    monkeypatch.setattr(ServiceAnswer, "chunks", chunks)


def test_pings_fill_the_silence_and_an_error_is_an_event(custom, slow_answer):
    with running(custom, Limits(ping_s=0.1)) as server:
        text = server.post(CHAT, {"messages": FRANCE, "stream": True}).text
    assert ": ping\n\n" in text
    *_, error, done, end = text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    assert json.loads(error.removeprefix("data: "))["error"]["message"] == "the disk is gone"


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_its_row(server, stream):
    aborted = server.gauge("phi_request_aborted_total")
    with pytest.raises(requests.exceptions.Timeout):
        for _ in requests.post(
            server.url + CHAT, json=LONG | {"stream": stream}, stream=True, timeout=(5, 0.5) if stream else 0.5
        ).iter_lines():
            if server.gauge("phi_requests_running"):
                raise requests.exceptions.Timeout  # leave while the answer is being made
    server.wait_until_idle()
    assert server.gauge("phi_request_aborted_total") == aborted + 1


def test_metrics_count_what_was_served(server):
    before = server.gauge("phi_generation_tokens_total")
    usage = server.post(CHAT, {"messages": FRANCE}).json()["usage"]
    deadline = time.monotonic() + 2
    while server.gauge("phi_generation_tokens_total") == before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.gauge("phi_generation_tokens_total") == before + usage["completion_tokens"]
    text = server.get("/metrics").text
    assert 'phi_http_requests_total{method="POST",path="/v1/chat/completions",status="200"}' in text
    for name in ("time_to_first_token_seconds", "request_prompt_tokens", "request_generation_tokens"):
        assert f"phi_{name}_bucket" in text


CLIENT = """
import sys, requests
for line in requests.post(sys.argv[1], json={body}, stream=True, timeout=60).iter_lines():
    print("x", flush=True)
"""


def test_a_client_that_is_killed_in_the_middle_of_a_stream_frees_its_row(server):
    code = CLIENT.replace("{body}", repr(LONG | {"stream": True}))
    client = subprocess.Popen([sys.executable, "-c", code, server.url + CHAT], stdout=subprocess.PIPE)
    assert client.stdout is not None and client.stdout.readline()
    assert server.gauge("phi_requests_running") == 1
    client.kill()
    client.communicate()
    server.wait_until_idle(10)
