"""MLflow's own endpoints: the same answers as `mlflow models serve`, and nothing of a request in an error."""

import pytest
from mlflow.pyfunc import scoring_server
from starlette.testclient import TestClient

from tests.serving.harness import FRANCE

pytestmark = pytest.mark.model
ROWS = {"columns": ["messages", "max_tokens"], "data": [[FRANCE, 8], [FRANCE, 4]]}


def without_ids(answer):
    """Return an answer without what no two answers share."""
    if isinstance(answer, list):
        return [without_ids(item) for item in answer]
    if not isinstance(answer, dict):
        return answer
    varying = ("id", "created", "cached_tokens")
    return {name: without_ids(value) for name, value in answer.items() if name not in varying}


@pytest.fixture(scope="module")
def reference(custom) -> TestClient:
    """MLflow's scoring server over the same model."""
    return TestClient(scoring_server.init(custom.pyfunc))


@pytest.mark.parametrize("body", [{"messages": FRANCE, "max_tokens": 8}, {"dataframe_split": ROWS}, {"inputs": 1}])
def test_invocations(server, reference, body):
    ours, theirs = server.post("/invocations", body), reference.post("/invocations", json=body)
    assert ours.status_code == theirs.status_code
    if ours.status_code == 200:
        assert without_ids(ours.json()) == without_ids(theirs.json())
    else:
        assert ours.json()["error_code"] == theirs.json()["error_code"]


def test_ping_and_version(server, reference):
    for path in ("/ping", "/version"):
        assert server.get(path).content == reference.get(path).content


def test_an_error_does_not_repeat_the_request(server):
    body = {"messages": [{"role": "user", "content": "a secret"}], "temperature": 99}
    response = server.post("/invocations", body)
    assert response.status_code == 400
    assert "a secret" not in response.text
    assert "stack_trace" not in response.text


def test_another_content_type_is_415(server, reference):
    headers = {"Content-Type": "text/html"}
    ours = server.post("/invocations", None, headers=headers)
    assert ours.status_code == reference.post("/invocations", headers=headers, content=b"x").status_code == 415
