"""The judge: which answers it reads, what becomes of its verdicts, and a judge that does not answer."""

import pytest

from steps.common.errors import StepError
from steps.monitoring import judge
from steps.monitoring.served import observe
from tests.fakes.judge import judge as running_judge
from tests.monitoring.samples import served

pytestmark = pytest.mark.model  # it imports MLflow's judges, which takes seconds


@pytest.fixture
def address(monkeypatch):
    """Return a function that gives MLflow's judges an address."""

    def use(url: str) -> None:
        monkeypatch.setenv("OPENAI_API_BASE", url)
        monkeypatch.setenv("OPENAI_API_KEY", "planted-secret")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///:memory:")

    return use


def test_the_verdicts_are_values_of_the_requests_that_have_an_answer(address, monkeypatch):
    monkeypatch.setattr(judge, "MOST", 3)
    requests = [served(n, texts=("wrong" if n == 4 else "Paris",)) for n in range(5)]
    observations = list(map(observe, [*requests, served(5, status=500, texts=())]))
    with running_judge(lambda request: "no" if "wrong" in request else "yes") as (url, asked):
        address(url)
        judged = judge.with_verdicts("openai:/judge", observations, lambda: None)
    assert len(asked) == 3, "evenly spread"
    assert [one.values.get("rejected") for one in judged] == [0.0, 0.0, None, 0.0, None, None]
    assert "What is the capital of France?" in str(asked[0])


def test_a_judge_that_refuses_the_key_is_one_line_and_asked_for_one_answer_only(address):
    with running_judge(status=401) as (url, asked):
        address(url)
        with pytest.raises(StepError, match="judge 'openai:/judge' gave no verdict: ") as caught:
            judge.with_verdicts("openai:/judge", [observe(served(n)) for n in range(9)], lambda: None)
    assert "\n" not in str(caught.value) and "planted-secret" not in str(caught.value)
    assert len({str(request) for request in asked}) == 1
