"""A chat model that only has `predict`, as a model of the transformers flavor: whole answers, streamed in one piece."""

import json
from pathlib import Path

import mlflow
import pytest

from steps.serving.models import ServedModel
from tests.serving.harness import FRANCE, running

pytestmark = pytest.mark.model
CHAT = "/v1/chat/completions"
MODEL = """
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel
class Shout(PythonModel):
    def predict(self, context, model_input, params=None):
        (question,) = (row[-1]["content"] for row in model_input["messages"])
        message = {"role": "assistant", "content": question.upper()}
        usage = {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3}
        return [{"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}]
set_model(Shout())
"""


@pytest.fixture(scope="module")
def shouting(tmp_path_factory):
    """A server of a model that answers with the question in capitals."""
    folder = tmp_path_factory.mktemp("shout")
    (folder / "shout.py").write_text(MODEL)
    from mlflow.types.llm import CHAT_MODEL_INPUT_SCHEMA, CHAT_MODEL_OUTPUT_SCHEMA

    signature = mlflow.models.ModelSignature(CHAT_MODEL_INPUT_SCHEMA, CHAT_MODEL_OUTPUT_SCHEMA)
    code, target = str(folder / "shout.py"), Path(folder / "model")
    mlflow.pyfunc.save_model(target, python_model=code, signature=signature, pip_requirements=["mlflow"])
    with running(ServedModel(str(target), "shout", timeout=60)) as server:
        yield server


def test_a_whole_answer(shouting):
    answer = shouting.post(CHAT, {"messages": FRANCE, "model": "shout", "user": "me"}).json()
    assert answer["choices"][0]["message"]["content"] == "WHAT IS THE CAPITAL OF FRANCE?"
    assert (answer["object"], answer["model"]) == ("chat.completion", "shout")


def test_a_stream(shouting):
    body = {"messages": FRANCE, "stream": True, "stream_options": {"include_usage": True}}
    *events, done = [line for line in shouting.post(CHAT, body).text.splitlines() if line]
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert chunks[1]["choices"][0]["delta"]["content"].startswith("WHAT")
    assert chunks[2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[3]["usage"]["total_tokens"] == 3
    assert done == "data: [DONE]"


@pytest.mark.parametrize("path", ["/v1/completions", "/tokenize", "/v1/messages/count_tokens"])
def test_what_it_cannot_do_is_422(shouting, path):
    body = {"messages": FRANCE} if "count" in path else {"prompt": "x"}
    assert shouting.post(path, body).status_code == 422


def test_a_refusal_names_the_field_and_does_not_repeat_the_request(shouting):
    secret = [{"role": "user", "content": "a secret"}]
    for body, param in (({"messages": secret, "temperature": "hot"}, "temperature"), ({"messages": []}, "messages")):
        response = shouting.post(CHAT, body)
        assert (response.status_code, response.json()["error"]["param"]) == (400, param)
        assert "a secret" not in response.text
    response = shouting.post(CHAT, {"messages": secret, "stop": "."})  # MLflow's schema wants a list
    assert response.status_code == 400
    assert "a secret" not in response.text


def test_a_whole_answer_is_counted_and_has_no_time_between_tokens(shouting):
    before = shouting.context.metrics.totals()
    shouting.post(CHAT, {"messages": FRANCE})
    shouting.post(CHAT, {"messages": FRANCE, "stream": True})
    shouting.wait_until_idle()
    after = shouting.context.metrics.totals()
    assert [after[name] - before[name] for name in ("answers", "prompt_tokens", "completion_tokens")] == [2, 4, 2]
    assert shouting.gauge("phi_inter_token_latency_seconds_count") == 0
