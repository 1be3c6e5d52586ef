"""schemathesis against the server's own description: whatever it sends, the answer has one of the described shapes."""

import hypothesis
import pytest
import schemathesis

from tests.serving.harness import Server

pytestmark = pytest.mark.model
_ANYTHING = hypothesis.settings(max_examples=15, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))


@pytest.fixture
def description(server: Server):
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json").exclude(path="/invocations")


described = schemathesis.pytest.from_fixture("description")


@described.parametrize()
@_ANYTHING
def test_every_answer_is_described(case, server):
    response = case.call(base_url=server.url, timeout=60)
    assert response.status_code < 500
    if response.status_code >= 400:
        body = response.json()
        assert body.get("type") == "error" or set(body["error"]) == {"message", "type", "param", "code"}
