"""MLflow's gateway in front of the server, and the clients of the gateway: mlflow.deployments, openai, ChatMlflow."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import openai
import pytest
import requests
import yaml
from mlflow.deployments import get_deploy_client

from tests.fakes.servers import free_port
from tests.serving.harness import FRANCE, NAME, Server

pytestmark = pytest.mark.e2e
PROMPT = "<|user|>\nWhat is the capital of France?<|end|>\n<|assistant|>\n"


@pytest.fixture(scope="module")
def gateway(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real gateway whose provider is the server."""
    pytest.importorskip("slowapi", reason="mlflow[gateway] is not installed")
    config, port = tmp_path_factory.mktemp("gateway") / "gateway.yaml", free_port()
    provider = {"openai_api_key": "any-word", "openai_api_base": f"{server.url}/v1"}
    model = {"provider": "openai", "name": NAME, "config": provider}
    kinds = {"chat": "llm/v1/chat", "completions": "llm/v1/completions"}
    endpoints = [{"name": name, "endpoint_type": kind, "model": model} for name, kind in kinds.items()]
    config.write_text(yaml.safe_dump({"endpoints": endpoints}))
    command = [sys.executable, "-m", "mlflow", "gateway", "start", "--workers", "1", "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--config-path", str(config)],
        cwd=config.parent,
        env=os.environ | {"PYTHONWARNINGS": "ignore", "HOME": str(config.parent)},  # gunicorn writes a file there
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{url}/health", process)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def _wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + 240
    while time.monotonic() < end:
        assert process.poll() is None, "the gateway has ended"
        try:
            if requests.get(url, timeout=10).status_code == 200:
                return
        except (requests.exceptions.ConnectionError, requests.exceptions.Timeout):  # it listens before it can answer
            time.sleep(0.2)
    raise AssertionError("the gateway does not answer")


def test_mlflow_deployments(gateway):
    client = get_deploy_client(gateway)
    assert {endpoint.name for endpoint in client.list_endpoints()} == {"chat", "completions"}
    answer = client.predict(endpoint="chat", inputs={"messages": FRANCE, "max_tokens": 8, "temperature": 0})
    assert answer["choices"][0]["message"]["content"] == "Paris"
    assert answer["usage"]["completion_tokens"] > 0
    completion = client.predict(endpoint="completions", inputs={"prompt": PROMPT, "max_tokens": 8})
    assert completion["choices"][0]["text"].strip() == "Paris"


def test_the_openai_client_through_the_gateway(gateway):
    client = openai.OpenAI(base_url=f"{gateway}/v1", api_key="any word", max_retries=0)
    assert client.chat.completions.create(model="chat", messages=FRANCE).choices[0].message.content == "Paris"
    chunks = [*client.chat.completions.create(model="chat", messages=FRANCE, stream=True)]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Paris"
    assert len(chunks) > 2


def test_a_refusal_comes_through_the_gateway(gateway):
    client = openai.OpenAI(base_url=f"{gateway}/v1", api_key="any word", max_retries=0)
    with pytest.raises(openai.BadRequestError) as refusal:
        client.chat.completions.create(model="chat", messages=FRANCE, stop=["a"] * 17)
    assert "at most 16 strings" in refusal.value.response.text


def test_langchains_chat_mlflow(gateway):
    """It streams from Databricks only."""
    ChatMlflow = pytest.importorskip("langchain_community.chat_models").ChatMlflow

    chat = ChatMlflow(target_uri=gateway, endpoint="chat", max_tokens=8)
    assert chat.invoke("What is the capital of France?").content == "Paris"
