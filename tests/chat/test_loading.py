"""Loading a logged model: damaged files, settings, traces, and what a process of a user sees of it."""

import shutil
import subprocess
import sys

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from tests.chat.models import FRANCE, chat
from tests.checkout import tracking_store

pytestmark = pytest.mark.model


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda path: path.write_bytes(path.read_bytes()[:-1]),
            r"onnx/model.onnx.data has \d+ bytes, and \d+ were logged",
        ),
        (
            lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\xff"),
            "onnx/model.onnx.data does not have the SHA-256",
        ),
        (lambda path: path.unlink(), "onnx/model.onnx.data is missing"),
    ],
)
def test_loading_a_model_names_the_file_that_is_damaged(model_folders, tmp_path, damage, message):
    folder = shutil.copytree(model_folders["int4"], tmp_path / "model")
    damage(next(folder.rglob("model.onnx.data")))
    with pytest.raises(MlflowException, match=message):
        mlflow.pyfunc.load_model(str(folder))


def test_the_model_config_of_load_model_overrides_the_settings(model_folders):
    model = mlflow.pyfunc.load_model(str(model_folders["int4"]), model_config={"threads": 1, "parallel": 2})
    assert model.unwrap_python_model()._service.engine.threads == 1
    with pytest.raises(MlflowException, match="provider is 'cuda'; this installation"):
        mlflow.pyfunc.load_model(str(model_folders["int4"]), model_config={"provider": "cuda"})


def test_each_request_leaves_a_trace_if_the_model_config_asks_for_traces(model_folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the default experiment puts its artifacts here
    with tracking_store(f"sqlite:///{tmp_path}/mlflow.db"):
        model = mlflow.pyfunc.load_model(str(model_folders["int4"]), model_config={"trace": True})
        chat(model)
        list(model.predict_stream({"messages": FRANCE}))
        with pytest.raises(MlflowException):
            chat(model, messages=[{"role": "user", "content": "word " * 2100}])
        with pytest.raises(MlflowException):
            chat(model, temperature=7)
        next(closed := model.predict_stream({"messages": FRANCE}))
        closed.close()
        chat(mlflow.pyfunc.load_model(str(model_folders["int4"])))  # leaves no trace
        mlflow.flush_trace_async_logging()
        traces = mlflow.search_traces(locations=["0"], return_type="list")
    assert sorted(trace.info.status.value for trace in traces) == ["ERROR", "ERROR", "OK", "OK", "OK"]
    finished = [trace for trace in traces if trace.info.status.value == "OK"]
    complete = [trace for trace in finished if not trace.data.spans[0].attributes.get("cancelled")]
    assert len(complete) == 2
    for trace in complete:
        span = trace.data.spans[0]
        assert span.inputs["messages"] == FRANCE
        assert span.outputs["choices"][0]["message"]["content"] == "Paris"
        assert span.attributes["mlflow.llm.model"] == "tiny-phi3"
        assert trace.info.token_usage["total_tokens"] == 18
        times = [span.attributes[name] for name in ("queue_ms", "time_to_first_token_ms", "total_ms")]
        assert times == sorted(times) and times[0] >= 0
    assert sorted(trace.data.spans[0].attributes["reused_tokens"] for trace in complete) == [0, 14]


def test_no_warning_reaches_the_user_of_a_model_and_no_torch_is_loaded(model_folders):
    script = (
        "import warnings, sys; warnings.simplefilter('error', DeprecationWarning); "
        "warnings.simplefilter('error', FutureWarning); import mlflow; "
        f"model = mlflow.pyfunc.load_model({str(model_folders['int4'])!r}); "
        f"print(model.predict({{'messages': {FRANCE!r}}})[0]['choices'][0]['message']['content']); "
        f"print(len(list(model.predict_stream({{'messages': {FRANCE!r}}})))); "
        "print([name for name in ('torch', 'transformers', 'steps') if name in sys.modules])"
    )
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=model_folders["int4"])
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines() == ["Paris", "4", "[]"]
    assert "arning" not in process.stderr
