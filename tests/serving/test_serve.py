"""The entry point `serve`: it listens early, answers, drains at SIGTERM, and its run is FINISHED."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import requests

from tests.checkout import Project, assert_refused, listen_to_signals
from tests.fakes.servers import free_port
from tests.serving.harness import FRANCE, LONG

pytestmark = pytest.mark.e2e


def start(local: Project, *arguments: str, **env: str) -> subprocess.Popen[str]:
    """Start the command of the entry point."""
    path = os.pathsep.join([str(local.root), os.environ["PYTHONPATH"]])
    return subprocess.Popen(
        [sys.executable, "-m", "steps.serve", *arguments],
        cwd=local.home,
        env=os.environ | {"PYTHONPATH": path, "MLFLOW_TRACKING_URI": local.uri} | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=listen_to_signals,
    )


def wait_for_status(url: str, status: int, seconds: float = 120.0) -> set[int]:
    """Return the statuses of /health on the way to the wanted one."""
    seen: set[int] = set()
    end = time.monotonic() + seconds
    while status not in seen:
        assert time.monotonic() < end, seen
        time.sleep(0.05)
        try:
            seen.add(requests.get(f"{url}/health", timeout=10).status_code)
        except requests.exceptions.ConnectionError:
            continue
    return seen


def test_the_life_of_a_server(local, model_folder):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    process = start(local, f"--model={model_folder}", f"--port={port}")
    assert 503 in wait_for_status(url, 200), "it did not listen while the model was loading"
    answer = requests.post(f"{url}/v1/chat/completions", json={"messages": FRANCE}, timeout=60).json()
    assert answer["choices"][0]["message"]["content"] == "Paris"

    body = LONG | {"max_tokens": 300, "stream": True}
    response = requests.post(f"{url}/v1/chat/completions", json=body, stream=True, timeout=60)
    lines = response.iter_lines()
    next(lines)
    process.send_signal(signal.SIGTERM)
    assert [line for line in lines if line][-1] == b"data: [DONE]"

    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert f"{url}/v1" in out
    assert "curl" in out
    run = local.latest("serve")
    assert run.info.status == "FINISHED"
    assert run.data.metrics["answers"] == 2
    assert run.data.tags["model_uri"] == str(model_folder)


def test_a_signal_while_the_model_loads_ends_the_server_at_once(local, model_folder):
    port = free_port()
    process = start(local, f"--model={model_folder}", f"--port={port}")
    wait_for_status(f"http://127.0.0.1:{port}", 503)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert local.latest("serve").info.status == "FINISHED"


def test_a_busy_port_and_wrong_parameters_are_one_line(local, model_folder):
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = str(busy.getsockname()[1])
        assert_refused(local, local.run_module("serve", model=str(model_folder), port=port), f"port {port}")
    assert_refused(local, local.run_module("serve", model="x", host="0.0.0.0"), "PHI_MLFLOW_API_KEY")
    assert_refused(local, local.run_module("serve", model="x", port="many"), "port is 'many'")
    assert_refused(local, local.run_module("serve", model="models:/m/1", follow="true"), "alias")
    assert_refused(
        local, local.run_module("serve", model="/no/such/model", port="0"), "/no/such/model cannot be loaded"
    )


def test_the_keys_are_read_again_on_sighup(local, model_folder, tmp_path):
    port, keys = free_port(), tmp_path / "keys"
    keys.write_text("first-long-key\n")
    process = start(local, f"--model={model_folder}", f"--port={port}", PHI_MLFLOW_API_KEY_FILE=str(keys))
    url = f"http://127.0.0.1:{port}"
    wait_for_status(url, 200)

    def status(key: str) -> int:
        return requests.get(f"{url}/v1/models", headers={"x-api-key": key}, timeout=10).status_code

    assert (status("first-long-key"), status("second-long-key")) == (200, 401)
    keys.write_text("second-long-key\n")
    process.send_signal(signal.SIGHUP)
    end = time.monotonic() + 10
    while status("second-long-key") != 200:
        assert time.monotonic() < end
    assert status("first-long-key") == 401
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 0
