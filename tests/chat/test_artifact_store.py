"""A model in a local artifact store: what the store holds, and what is left there after others have used the model."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import mlflow
import pytest

from steps.wrap_custom import model_arguments
from tests.chat.models import CHAT, FRANCE
from tests.checkout import ROOT
from tests.conversion.records import conversion_of
from tests.fakes.servers import free_port

pytestmark = pytest.mark.model
USE = f"""
import sys, mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
model.predict({{"messages": {FRANCE}, "response_format": {{"type": "regex", "regex": "[A-Z]+"}}, "max_tokens": 4}})
list(model.predict_stream({{"messages": {FRANCE}}}))
assert not sys.dont_write_bytecode
"""


@pytest.fixture(scope="module")
def logged_model(converted, tmp_path_factory) -> tuple[str, str, Path]:
    """A model logged to a SQLite store with local artifacts: the store's URI, the model's URI, its folder."""
    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder}/mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        experiment = mlflow.create_experiment("chat", artifact_location=str(folder / "artifacts"))
        arguments = model_arguments(converted["genai int4"], conversion_of(converted["genai int4"]), CHAT, folder)
        with mlflow.start_run(experiment_id=experiment):
            info = mlflow.pyfunc.log_model(name="model", **arguments)
    (path,) = (folder / "artifacts").rglob("MLmodel")
    return uri, info.model_uri, path.parent


def environment(uri: str) -> dict[str, str]:
    """Return a user's environment: Python writes bytecode, as it does by default."""
    names = ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")
    return {name: value for name, value in os.environ.items() if name not in names} | {"MLFLOW_TRACKING_URI": uri}


def files(folder: Path) -> set[str]:
    """Return the files and folders below a folder, except for the file that MLflow adds to every model it loads."""
    paths = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    return paths - {"registered_model_meta"}


def answer(port: int, server: subprocess.Popen[bytes]) -> str:
    """Return what the server answers to the question FRANCE, once it has started."""
    body = json.dumps({"messages": FRANCE}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": "application/json"})
    for _ in range(600):
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                (chat_response,) = json.load(response)
                return chat_response["choices"][0]["message"]["content"]
        except urllib.error.URLError:
            assert server.poll() is None
            time.sleep(0.2)
    raise TimeoutError


def test_a_logged_model_has_the_whole_package_and_its_licence(logged_model):
    _, _, folder = logged_model
    modules = {path.relative_to(ROOT / "steps").as_posix() for path in (ROOT / "steps" / "chat").rglob("*.py")}
    assert modules | {"chat/LICENSE"} <= files(folder / "code")
    assert (folder / "code" / "chat" / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_load_model_leaves_no_file_in_the_store(logged_model):
    uri, model_uri, folder = logged_model
    before = files(folder)
    subprocess.run([sys.executable, "-c", USE, model_uri], env=environment(uri), check=True, timeout=600)
    assert files(folder) == before


def test_models_serve_leaves_no_file_in_the_store(logged_model, tmp_path):
    uri, _, folder = logged_model
    before, port = files(folder), free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(folder), "-p", str(port)]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--env-manager", "local"], env=environment(uri), stdout=log, stderr=log, start_new_session=True
        )
        try:
            assert answer(port, server) == "Paris"
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait()
    assert files(folder) == before
