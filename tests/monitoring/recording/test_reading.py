"""Which traces are read for which model, in a real store: those that `serve` writes, page by page, without secrets."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from mlflow import MlflowClient

from steps.chat.batching.generation import Completion
from steps.common.errors import StepError
from steps.monitoring.recording import traces as reading
from steps.monitoring.recording.baseline import find_baseline
from steps.monitoring.recording.traces import Search, read_requests
from steps.monitoring.recording.watched import find_watched
from steps.serving.traces import Exchanged, Traces
from tests.checkout import tracking_store

pytestmark = pytest.mark.unit
NAME = "watched"
MODEL_ID = "m-" + "0a" * 16
COMPLETION = Completion("Paris", 14, 3, "stop", 0, 0.001, 0.006, 0.014)


@dataclass(frozen=True)
class Store:
    """A store with a registered model of two versions."""

    client: MlflowClient
    experiment: str

    def write(self, uri: str, model_id: str = "", route: str = "/v1/chat/completions", **fields) -> None:
        """Write the trace of a request as `serve` does."""
        usual: dict = {
            "route": route,
            "client": "",
            "model_name": NAME,
            "model_uri": uri,
            "model_id": model_id,
            "body": {"messages": [{"role": "user", "content": "Where is Ann?"}]},
            "completions": (COMPLETION,),
            "status": 200,
            "error": "",
            "start_ns": time.time_ns() - 10**7,
            "end_ns": time.time_ns(),
        }
        writer = Traces(1.0, self.experiment)
        writer.offer(Exchanged(**usual | fields))
        writer.close(60)
        assert writer.written == 1

    def read(self, model: str, limit: int = 100, seconds: float = 3600) -> reading.Found:
        """Read the requests of a model."""
        now = int(1000 * time.time()) + 1000
        watched = find_watched(self.client, model)
        search = Search(self.experiment, watched.filter, now - int(1000 * seconds), now, limit)
        return read_requests(self.client, search, lambda: None)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Iterator[Store]:
    """The store, which MLflow's functions in this process use too."""
    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder}/mlflow.db"
    with tracking_store(uri):
        client = MlflowClient(uri, uri)
        experiment = client.create_experiment("served", artifact_location=folder.as_uri())
        client.create_registered_model(NAME)
        client.create_model_version(NAME, "s3://bucket/somewhere")
        client.create_model_version(NAME, f"s3://bucket/{MODEL_ID}/artifacts")
        client.set_registered_model_alias(NAME, "champion", "2")
        store = Store(client, experiment)
        store.write(f"models:/{NAME}/1")
        store.write(f"models:/{NAME}/2", MODEL_ID)
        store.write(f"models:/{MODEL_ID}", MODEL_ID, status=400, completions=(), error="temperature is 9")
        store.write(f"models:/{NAME}/2", MODEL_ID, route="/tokenize")
        store.write("/models/saved")
        yield store


@pytest.mark.parametrize(
    ("model", "requests"),
    [
        (f"models:/{NAME}/1", 1),
        (f"models:/{NAME}/2", 2),
        (f"models:/{NAME}@champion", 2),
        (NAME, 2),
        (f"models:/{NAME}", 2),
        ("/models/saved", 1),
        ("/models/other", 0),
    ],
)
def test_a_model_selects_its_own_requests_for_answers(store, model, requests):
    assert len(store.read(model).requests) == requests


@pytest.mark.parametrize(
    "model", [f"models:/{NAME}@nobody", f"models:/{NAME}/9", "models:/nobody/1", "nobody", "models:/m-" + "0" * 32]
)
def test_an_unknown_model_is_one_line(store, model):
    with pytest.raises(StepError, match=r"model is '.*not found") as caught:
        find_watched(store.client, model)
    assert "\n" not in str(caught.value)


def test_a_quotation_mark_is_refused(store):
    with pytest.raises(StepError, match="without a quotation mark"):
        find_watched(store.client, "/models/it's")


def test_a_trace_gives_back_what_was_served(store):
    (request,) = store.read(f"models:/{NAME}/1").requests
    assert (request.status, request.texts, request.question) == (200, ("Paris",), "Where is Ann?")
    assert (request.prompt_tokens, request.answer_tokens, request.finish_reasons) == (14, (3,), ("stop",))
    assert (request.first_token_ms, request.total_ms) == (pytest.approx(6), pytest.approx(14))
    assert abs(request.time_ms - 1000 * time.time()) < 600_000
    refused = next(one for one in store.read(f"models:/{NAME}/2").requests if one.status == 400)
    assert refused.texts == ()


def test_the_latest_requests_are_read_page_by_page_in_the_order_of_their_time(store, monkeypatch):
    monkeypatch.setattr(reading, "_PAGE", 2)
    start = time.time_ns()
    for number in range(5):
        times = {"start_ns": start + number * 10**6, "end_ns": start + number * 10**6}
        store.write("/models/many", body={"messages": [{"role": "user", "content": str(number)}]}, **times)
    found = store.read("/models/many")
    assert [request.question for request in found.requests] == ["0", "1", "2", "3", "4"]
    assert not found.left_out
    found = store.read("/models/many", limit=3)
    assert [request.question for request in found.requests] == ["2", "3", "4"]
    assert found.left_out


def test_older_requests_are_not_read(store):
    day = 24 * 3600
    store.write("/models/old", start_ns=time.time_ns() - 2 * day * 10**9, end_ns=time.time_ns() - 2 * day * 10**9)
    assert store.read("/models/old", seconds=day).requests == ()
    assert len(store.read("/models/old", seconds=3 * day).requests) == 1


def test_a_secret_that_a_trace_has_is_not_read(store):
    import mlflow

    tags = {"phi.route": "/v1/messages", "phi.model_uri": "/models/secret", "phi.status": "200"}
    body = {"messages": [{"role": "user", "content": "I am ann@example.org"}]}
    span = mlflow.start_span_no_context(name="request", inputs=body, tags=tags, experiment_id=store.experiment)
    span.end(outputs={"texts": ["key sk-proj-abcdefghijklmnop1234"]})
    mlflow.flush_trace_async_logging()
    (request,) = store.read("/models/secret").requests
    assert (request.question, request.texts) == ("I am <an e-mail address>", ("key <a token>",))


def test_a_model_without_an_evaluation_has_no_baseline(store):
    evaluated = find_baseline(store.client, find_watched(store.client, f"models:/{NAME}/1"), 10)
    assert (evaluated.baseline.kind, evaluated.answers) == ("none", ())
    assert evaluated.baseline.reason == "the model has no evaluation: evaluate it to have a baseline"


def test_an_evaluation_that_is_gone_is_the_reason(store):
    store.client.set_model_version_tag(NAME, "1", "evaluation_run", "0" * 32)
    baseline = find_baseline(store.client, find_watched(store.client, f"models:/{NAME}/1"), 10).baseline
    assert baseline.kind == "none"
    assert f"evaluation.json of run {'0' * 32} cannot be read" in baseline.reason
