"""schemathesis against the server's own description: whatever it sends, the answer has one of the described shapes."""

import hypothesis
import pytest
import schemathesis
from hypothesis import strategies
from schemathesis.core.result import Ok

from tests.serving.harness import Server

pytestmark = pytest.mark.model
_PLAIN = hypothesis.settings(max_examples=100, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))


def test_every_answer_is_described(server: Server):
    description = schemathesis.openapi.from_url(f"{server.url}/openapi.json").exclude(path="/invocations")
    operations = [result.ok() for result in description.get_all_operations() if isinstance(result, Ok)]
    assert len(operations) > 10
    statuses = set()

    @_PLAIN
    @hypothesis.given(strategies.one_of([operation.as_strategy() for operation in operations]))
    def send(case):
        response = case.call(base_url=server.url, timeout=60)
        statuses.add(response.status_code)
        assert response.status_code < 500
        if response.status_code >= 400:
            body = response.json()
            assert body.get("type") == "error" or set(body["error"]) == {"message", "type", "param", "code"}

    send()
    assert {200, 400} <= statuses
    server.wait_until_idle()
