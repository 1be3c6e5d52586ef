"""The model behind MLflow's own server, `mlflow models serve`: new fields, errors in one line, abandoned requests."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import mlflow
import pytest
import requests
from mlflow.pyfunc import scoring_server
from starlette.testclient import TestClient

from tests.chat.models import CHAT, COMPLETIONS, FRANCE
from tests.fakes.servers import free_port

pytestmark = pytest.mark.model
LIMIT = 6  # seconds after which MLflow's server gives a request up
ENDLESS = {"messages": FRANCE, "ignore_eos": True, "max_tokens": 1900, "n": 16}
BEGIN_S = 120  # seconds that the server may take to load the model


@dataclass(frozen=True)
class Server:
    """A running `mlflow models serve`."""

    url: str

    def ask(self, timeout: float = 60, **fields: Any) -> requests.Response:
        """Post a chat request."""
        return requests.post(f"{self.url}/invocations", json={"messages": FRANCE} | fields, timeout=timeout)


@pytest.fixture(scope="module")
def server(model_folders, tmp_path_factory) -> Iterator[Server]:
    """A server of the custom chat model."""
    port, log = free_port(), tmp_path_factory.mktemp("serve") / "log"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(model_folders[CHAT]), "-p", str(port)]
    env = os.environ | {"MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT": str(LIMIT), "MLFLOW_MODELS_WORKERS": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--env-manager", "local"], env=env, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield Server(_wait(f"http://127.0.0.1:{port}", process, log.read_text))
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


def _wait(url: str, process: subprocess.Popen[bytes], log: Any) -> str:
    end = time.monotonic() + BEGIN_S
    while True:
        try:
            requests.get(f"{url}/ping", timeout=5)
            return url
        except requests.ConnectionError:
            assert process.poll() is None and time.monotonic() < end, log()
            time.sleep(0.1)


def test_the_fields_of_todays_clients_are_honoured(server):
    text = {"role": "user", "content": [{"type": "text", "text": "One?"}]}
    parts = [{"role": "developer", "content": "Be brief."}, text]
    (short,) = server.ask(messages=parts, max_completion_tokens=1.0, stop=None).json()
    assert short["usage"]["completion_tokens"] == 1
    (answer,) = server.ask(logprobs=True, top_logprobs=2, logit_bias={"5": -100}, temperature=0, user="me").json()
    (par, _) = answer["choices"][0]["logprobs"]["content"]
    assert answer["choices"][0]["message"]["content"] == "Paris" and answer["id"].startswith("chatcmpl-")
    assert par["token"] == "Par" and len(par["top_logprobs"]) == 2


def test_a_refusal_names_the_field_and_does_not_repeat_the_request(server):
    for fields, param in (({"max_token": 5}, "max_token"), ({"messages": []}, "messages"), ({"n": 99}, "n")):
        response = server.ask(**fields)
        assert (response.status_code, response.json()["param"]) == (400, param)
        assert "France" not in response.json()["message"]


def test_a_request_that_takes_too_long_and_those_that_clients_abandon_free_their_places(server):
    late = server.ask(**ENDLESS)
    assert late.status_code == 504 and "no answer within 4 s, the model config's timeout" in late.json()["message"]
    for _ in range((os.cpu_count() or 1) + 8):  # more than MLflow's server has threads
        with pytest.raises(requests.Timeout):
            server.ask(timeout=0.1, **ENDLESS)
    answer = next(answer for answer in (server.ask() for _ in range(9)) if answer.status_code == 200)
    assert answer.json()[0]["choices"][0]["message"]["content"] == "Paris"


def test_the_rows_of_completions_with_errors_are_valid_json(transformers_folders):
    client = TestClient(scoring_server.init(mlflow.pyfunc.load_model(str(transformers_folders[COMPLETIONS]))))
    prompt = "<|user|>\nWhat is 2 plus 2?<|end|>\n<|assistant|>\n"
    rows = {"dataframe_split": {"columns": ["prompt"], "data": [[""], [prompt], [None]]}, "params": {"max_tokens": 4}}
    text = client.post("/invocations", json=rows).text
    bad, good, absent = json.loads(text, parse_constant=pytest.fail)["predictions"]
    assert (bad["text"], bad["completion_tokens"], good["text"], good["error"]) == (None, 0, "4", None)
    assert bad["error"].startswith("prompt is an empty string") and absent["error"].startswith("prompt is null")
