"""A loaded model in other processes: forks, copies, and the limits of a scoring server."""

import copy
import os
import pickle
import signal
import subprocess
import sys
import time

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from steps.chat.settings import Settings
from tests.chat.models import CHAT, FRANCE, chat, content

FORK = f"""
import os, sys, mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
request = {{"messages": {FRANCE}}}
model.predict(request)
if os.fork() == 0:
    for call in (lambda: model.predict(request), lambda: next(iter(model.predict_stream(request)))):
        try:
            call()
        except mlflow.MlflowException as error:
            print(error, flush=True)
    sys.exit() if sys.argv[2] == "sys.exit" else os._exit(0)  # as multiprocessing does
assert os.wait()[1] == 0
print(model.predict(request)[0]["choices"][0]["message"]["content"])
"""


@pytest.mark.model
@pytest.mark.parametrize("end", ["os._exit", "sys.exit"])
@pytest.mark.parametrize("runtime", ["onnx", "torch"])
def test_a_forked_child_says_that_the_model_must_be_loaded_there_and_ends(
    model_folders, transformers_folders, runtime, end
):
    folder = (model_folders if runtime == "onnx" else transformers_folders)[CHAT]
    process = subprocess.Popen(
        [sys.executable, "-c", FORK, str(folder), end],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        lines = process.communicate(timeout=120)[0].splitlines()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert len(lines) == 3 and lines[2] == "Paris"
    assert all("load the model in this process" in line for line in lines[:2])


@pytest.mark.model
@pytest.mark.parametrize("copied", [pickle.dumps, copy.deepcopy], ids=["pickle", "deepcopy"])
def test_a_loaded_model_says_that_it_cannot_be_copied(models, copied):
    with pytest.raises(MlflowException, match="can't be pickled or copied, .* send its URI"):
        copied(models[CHAT])
    assert content(chat(models[CHAT])) == "Paris"


@pytest.mark.unit
@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, 0),
        ({"_MLFLOW_IS_IN_SERVING_ENVIRONMENT": "true"}, 58),
        ({"MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT": "30"}, 28),
        ({"MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT": "1"}, 0.5),
    ],
)
def test_the_default_timeout_is_below_the_scoring_servers(monkeypatch, environment, expected):
    for name in ("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Settings().effective_timeout() == expected
    assert Settings(timeout=7).effective_timeout() == 7 and Settings(timeout=0).effective_timeout() == 0


@pytest.mark.model
def test_a_request_ends_before_the_scoring_server_gives_it_up(model_folders, monkeypatch):
    monkeypatch.setenv("MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT", "1")
    model = mlflow.pyfunc.load_model(str(model_folders[CHAT]))
    started = time.monotonic()
    with pytest.raises(MlflowException, match="no answer within 0.5 s") as caught:
        chat(model, n=16, max_tokens=1900, ignore_eos=True, temperature=1)
    assert time.monotonic() - started < 5 and caught.value.error_code == "DEADLINE_EXCEEDED"
    assert content(chat(model)) == "Paris"
