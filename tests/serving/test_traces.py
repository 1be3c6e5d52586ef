"""Sampled requests become MLflow traces, without secrets, and without holding a request up."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator

import mlflow
import pytest
from mlflow.tracing.provider import trace_disabled

from steps.serving import traces
from steps.serving.redaction import redact, redact_value
from steps.serving.traces import Exchanged, Traces
from tests.checkout import tracking_store
from tests.serving.harness import FRANCE, Server, running

SECRETS = {
    "write to ann.lee@example.org now": "write to <an e-mail address> now",
    "the host 192.168.17.4:8080 is down": "the host <an IP address>:8080 is down",
    "at fe80::1ff:fe23:4567:890a": "at <an IP address>",
    "key sk-proj-abcdefghijklmnop1234": "key <a token>",
    "hf_abcdefghijklmnopqrstuv": "<a token>",
    "Authorization: Bearer abc.def-ghi_jkl": "Authorization: Bearer <a password>",
    "password: hunter22, please": "<a password>, please",
    "postgresql://me:secret@db.example.org/x": "postgresql://<a URL's password>@db.example.org/x",
    "call +47 22 12 34 56": "call <a phone number>",
    "card 4111 1111 1111 1111": "card <a card number>",
    "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----": "<a private key>",
}
PLAIN = (
    "The capital of France is Paris.",
    "a::b and std::vector<int>",
    "at 12:30:45",
    "version 1.2.3",
    "1 + 1 = 2",
    "",
)


@pytest.mark.unit
@pytest.mark.parametrize("text", SECRETS)
def test_secrets_and_addresses_are_taken_out(text):
    assert redact(text) == SECRETS[text]


@pytest.mark.unit
@pytest.mark.parametrize("text", PLAIN)
def test_plain_text_stays_as_it_is(text):
    assert redact(text) == text


@pytest.mark.unit
def test_every_text_of_a_request_is_redacted_and_nothing_else():
    body = {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "I am me@example.org"}]}],
        "n": 2,
        "stop": None,
    }
    expected = {"messages": [{"role": "user", "content": [{"type": "text", "text": "I am <an e-mail address>"}]}]}
    assert redact_value(body) == expected | {"n": 2, "stop": None}


@pytest.fixture
def experiment(tmp_path) -> Iterator[str]:
    """The ID of an experiment in a store of the test's own."""
    with tracking_store(f"sqlite:///{tmp_path}/mlflow.db"):
        yield mlflow.create_experiment("served")


@contextlib.contextmanager
def traced(custom, rate: float, experiment: str) -> Iterator[Server]:
    """A server that keeps traces. All are written at the end."""
    kept = Traces(rate, experiment)
    with running(custom, traces=kept) as server:
        yield server
    kept.close(60)


@pytest.mark.model
def test_a_sampled_request_becomes_a_trace(custom, experiment):
    secret = [{"role": "user", "content": "My address is ann@example.org. What is the capital of France?"}]
    with traced(custom, 1.0, experiment) as server:
        usage = server.post("/v1/chat/completions", {"messages": FRANCE}).json()["usage"]
        server.post("/v1/chat/completions", {"messages": FRANCE, "stream": True})
        server.post("/v1/chat/completions", {"messages": secret})
        server.post("/v1/chat/completions", {"messages": FRANCE, "temperature": 9})
        assert server.get("/v1/models").status_code == 200
    kept = _traces(experiment)
    assert sorted(trace.info.tags[traces.STATUS] for trace in kept) == ["200", "200", "200", "400"]
    refused = next(trace for trace in kept if trace.info.tags[traces.STATUS] == "400")
    assert refused.info.state.value == "ERROR" and "temperature" in json.loads(refused.data.response)["error"]
    streamed = next(trace for trace in kept if '"stream": true' in trace.data.request)
    assert json.loads(streamed.data.response) == {"texts": ["Paris"]}
    assert streamed.info.tags[traces.ROUTE] == "/v1/chat/completions"
    for trace in kept:
        assert (trace.info.tags[traces.MODEL], trace.info.tags[traces.MODEL_NAME]) == (custom.uri, custom.name)
    times = streamed.data.spans[0].attributes
    assert 0 < times[traces.FIRST_TOKEN_MS] <= times[traces.TOTAL_MS]
    assert (times[traces.ANSWER_TOKENS], times[traces.FINISH_REASONS]) == ([usage["completion_tokens"]], ["stop"])
    assert streamed.info.token_usage["output_tokens"] == usage["completion_tokens"]
    assert 0 < streamed.info.execution_duration < 60_000
    assert not any("ann@example.org" in trace.to_json() for trace in kept)


@pytest.mark.model
def test_no_trace_is_lost_while_mlflow_loads_a_model(custom, experiment):
    with traced(custom, 1.0, experiment) as server:
        with trace_disabled_block():
            server.post("/v1/chat/completions", {"messages": FRANCE})
        server.post("/v1/chat/completions", {"messages": FRANCE})
    assert len(_traces(experiment)) == 2


@contextlib.contextmanager
def trace_disabled_block() -> Iterator[None]:
    """Do what mlflow.pyfunc.load_model does to the process while it loads."""
    entered, leave = threading.Event(), threading.Event()

    @trace_disabled
    def load() -> None:
        entered.set()
        leave.wait()

    thread = threading.Thread(target=load)
    thread.start()
    entered.wait()
    yield
    time.sleep(0.3)  # the trace's turn comes in this time
    leave.set()
    thread.join()


@pytest.mark.model
def test_a_rate_keeps_its_share_and_no_rate_keeps_nothing(custom, experiment):
    with traced(custom, 0.0, experiment) as server:
        server.post("/v1/chat/completions", {"messages": FRANCE})
    assert _traces(experiment) == []
    sampler = Traces(0.25, experiment)
    assert 400 < sum(sampler.sampled() for _ in range(2000)) < 600
    sampler.close(1)


@pytest.mark.model
def test_a_store_that_hangs_costs_traces_and_no_request(custom, experiment, monkeypatch):
    entered, leave = threading.Event(), threading.Event()

    def hang(exchanged: Exchanged, experiment_id: str) -> None:
        entered.set()
        leave.wait()

    monkeypatch.setattr(traces, "_write", hang)
    monkeypatch.setattr(traces, "_LENGTH", 2)
    with traced(custom, 1.0, experiment) as server:
        for _ in range(5):
            assert server.post("/v1/chat/completions", {"messages": FRANCE}).status_code == 200
        assert entered.wait(10)
        end = time.monotonic() + 10
        while server.gauge("phi_traces_dropped_total") < 2 and time.monotonic() < end:
            time.sleep(0.05)
        assert server.gauge("phi_traces_dropped_total") == 2, "one is being written, two wait"
        leave.set()


def _traces(experiment: str) -> list:
    return mlflow.search_traces(locations=[experiment], return_type="list")
