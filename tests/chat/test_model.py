"""The logged model, as its users call it: pyfunc, streaming, DataFrames, traces, and what it refuses to load."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException

from steps.conversion.convert import convert
from steps.conversion.options import parse_choice
from steps.wrap_custom import model_arguments
from tests.checkout import ROOT, TINY
from tests.checkpoints.tokenizers import TEMPLATES
from tests.conversion.records import conversion_of

CHAT, COMPLETIONS = "llm/v1/chat", "llm/v1/completions"
FRANCE = [{"role": "user", "content": "What is the capital of France?"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"enum": ["Oslo"]}}, "required": ["city"]},
    },
}


def save(folder: Path, target: Path, task: str = CHAT) -> Path:
    """An MLflow model of a converted folder, as wrap_custom logs it."""
    mlflow.pyfunc.save_model(target, **model_arguments(folder, conversion_of(folder), task, target.parent))
    return target


@pytest.fixture(scope="module")
def folders(converted, tmp_path_factory) -> dict[str, Path]:
    """The int4 model of either task, and one whose chat template shows tools as Phi-4-mini's does."""
    scratch = tmp_path_factory.mktemp("models")
    checkpoint = shutil.copytree(TINY, scratch / "checkpoint")
    (checkpoint / "chat_template.jinja").write_text(TEMPLATES["phi-4-mini"])
    convert(checkpoint, scratch / "onnx", parse_choice("genai", "int4", "", "cpu"))
    return {
        CHAT: save(converted["genai int4"], scratch / "chat"),
        COMPLETIONS: save(converted["genai int4"], scratch / "completions", COMPLETIONS),
        "tools": save(scratch / "onnx", scratch / "tools"),
    }


@pytest.fixture(scope="module")
def models(folders):
    """Those, loaded."""
    return {name: mlflow.pyfunc.load_model(str(folder)) for name, folder in folders.items()}


def chat(model, messages=FRANCE, **fields) -> dict:
    (answer,) = model.predict({"messages": messages} | fields)
    return answer


# --- llm/v1/chat -----------------------------------------------------------------------------------------------------


def test_the_signature_is_mlflows_own_and_what_that_lacks(models):
    from mlflow.types.llm import CHAT_MODEL_INPUT_SCHEMA, CHAT_MODEL_OUTPUT_SCHEMA

    names = models[CHAT].metadata.signature.inputs.input_names()
    added = ["seed", "response_format", "tool_choice"]
    assert names == CHAT_MODEL_INPUT_SCHEMA.input_names() + added
    assert models[CHAT].metadata.signature.outputs == CHAT_MODEL_OUTPUT_SCHEMA


def test_an_answer(models):
    answer = chat(models[CHAT])
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "Paris"}
    assert (answer["model"], answer["object"]) == ("tiny-phi3", "chat.completion")
    assert answer["usage"] == {"prompt_tokens": 15, "completion_tokens": 3, "total_tokens": 18}


def test_every_field_reaches_the_engine_through_mlflow(models):
    model, count = models[CHAT], [{"role": "user", "content": "Count from 1 to 40."}]
    assert chat(model, count, max_tokens=4)["choices"][0]["finish_reason"] == "length"
    assert chat(model, count, stop="7")["choices"][0]["message"]["content"].strip() == "1 2 3 4 5 6"
    assert chat(model, count, stop=["9", "7"])["choices"][0]["message"]["content"].strip() == "1 2 3 4 5 6"
    sampled = [chat(model, temperature=2.0, seed=4, max_tokens=20, top_k=50, top_p=0.9) for _ in range(2)]
    assert sampled[0]["choices"] == sampled[1]["choices"]
    answer = chat(model, n=3, temperature=2.0, seed=4, max_tokens=20)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert len({choice["message"]["content"] for choice in answer["choices"]}) > 1
    assert answer["usage"]["prompt_tokens"] == 15
    form = {"type": "json_schema", "json_schema": {"schema": {"type": "array", "items": {"type": "integer"}}}}
    formed = chat(model, response_format=form, max_tokens=200)["choices"][0]["message"]["content"]
    assert isinstance(json.loads(formed), list)
    whole = {"temperature": 0, "top_p": 1, "presence_penalty": 0, "frequency_penalty": 0}
    assert chat(model, count, **whole)["choices"] == chat(model, count)["choices"]
    with pytest.raises(MlflowException, match="temperature is 7; expected a number of at least 0 and at most 2"):
        chat(model, temperature=7)
    assert chat(model, count, presence_penalty=2.0, frequency_penalty=2.0) != chat(model, count)


def test_rows_are_answered_in_their_order(models):
    cities = ["France", "Moldova", "Norway"]
    rows = [{"messages": [{"role": "user", "content": f"What is the capital of {c}?"}]} for c in cities]
    answers = models[CHAT].predict(pd.DataFrame(rows))
    assert [a["choices"][0]["message"]["content"] for a in answers] == ["Paris", "Chișinău", "Oslo"]


def test_more_rows_than_the_queue_holds_wait_and_one_request_too_many_is_refused(folders):
    model = mlflow.pyfunc.load_model(str(folders[CHAT]), model_config={"parallel": 1, "queue": 2})
    answers = model.predict(pd.DataFrame([{"messages": FRANCE}] * 9))
    assert [a["choices"][0]["message"]["content"] for a in answers] == ["Paris"] * 9
    with pytest.raises(MlflowException, match="requests wait already"):
        model.predict({"messages": FRANCE, "n": 16, "temperature": 1.0, "max_tokens": 100})
    assert chat(model)["choices"][0]["message"]["content"] == "Paris"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n": 40}, "n is 40"),
        ({"tools": [TOOL]}, "tools is .* this model's chat template shows none"),
        ({"stream": True}, "call predict_stream"),
        ({"messages": [{"role": "user", "content": "word " * 2100}]}, "at most 2047 fit"),
    ],
)
def test_what_cannot_be_answered_is_refused(models, fields, message):
    with pytest.raises(MlflowException, match=message):
        models[CHAT].predict({"messages": FRANCE} | fields)
    assert chat(models[CHAT])["choices"][0]["message"]["content"] == "Paris"


REQUESTS = st.fixed_dictionaries(
    {
        "messages": st.lists(
            st.fixed_dictionaries(
                {
                    "role": st.sampled_from(["system", "user", "assistant", "tool", "boss"]),
                    "content": st.one_of(
                        st.text(max_size=40), st.sampled_from(["Count from 1 to 40.", "Who are you?"])
                    ),
                }
            ),
            max_size=4,
        )
    },
    optional={
        "max_tokens": st.integers(0, 40),
        "temperature": st.floats(0, 2),
        "top_p": st.floats(0, 1),
        "top_k": st.integers(-1, 50),
        "n": st.integers(0, 3),
        "stop": st.lists(st.text(max_size=3), max_size=2),
        "seed": st.integers(0, 2**40),
        "presence_penalty": st.floats(-3, 3),
        "response_format": st.sampled_from(
            [{"type": "json_object"}, {"type": "regex", "regex": "[a-z]{2}"}, {"type": "x"}]
        ),
    },
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(REQUESTS)
def test_any_request_is_answered_or_refused_and_streaming_says_the_same(models, request_):
    request = {"seed": 1} | request_
    try:
        answer = models[CHAT].predict(request)[0]
    except MlflowException as error:
        assert len(str(error).splitlines()) == 1 and error.error_code in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
        with pytest.raises(MlflowException):
            list(models[CHAT].predict_stream(request))
        return
    chunks = list(models[CHAT].predict_stream(request))
    for choice in answer["choices"]:
        own = [c["choices"][0] for c in chunks if c["choices"] and c["choices"][0]["index"] == choice["index"]]
        text = "".join(c["delta"].get("content") or "" for c in own)
        assert (text, own[-1]["finish_reason"]) == (choice["message"]["content"], choice["finish_reason"])
        assert all(c["finish_reason"] is None for c in own[:-1])
        assert own[0]["delta"]["role"] == "assistant"
    assert chunks[-1]["usage"] == answer["usage"]


def test_a_stream_that_is_dropped_frees_its_place(models):
    form = {"type": "regex", "regex": "[0-9]{1500}"}
    chunks = models[CHAT].predict_stream({"messages": FRANCE, "response_format": form, "max_tokens": 1500})
    next(chunks)
    chunks.close()
    engine = models[CHAT].unwrap_python_model()._service.engine
    assert chat(models[CHAT])["choices"][0]["message"]["content"] == "Paris"
    assert engine._scheduler.memory.active == []


def test_tools_are_shown_and_called(models):
    model = models["tools"]
    without, with_ = chat(model, max_tokens=4), chat(model, tools=[TOOL], max_tokens=4)
    assert with_["usage"]["prompt_tokens"] > without["usage"]["prompt_tokens"] + 20
    assert chat(model, tools=[TOOL], tool_choice="none", max_tokens=4)["usage"] == without["usage"]
    for choice in ("required", {"type": "function", "function": {"name": "weather"}}):
        answer = chat(model, tools=[TOOL], tool_choice=choice, max_tokens=200)["choices"][0]
        (call, *_) = answer["message"]["tool_calls"]
        assert answer["finish_reason"] == "tool_calls" and answer["message"]["content"] == ""
        assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == ("weather", {"city": "Oslo"})
    conversation = [
        *FRANCE,
        {"role": "assistant", "tool_calls": answer["message"]["tool_calls"]},
        {"role": "tool", "content": "5 degrees", "tool_call_id": call["id"]},
    ]
    assert chat(model, conversation, tools=[TOOL], max_tokens=4)["usage"]["completion_tokens"] > 0


def test_streamed_calls_come_at_the_end_and_not_as_text(models):
    request = {"messages": FRANCE, "tools": [TOOL], "tool_choice": "required", "max_tokens": 200}
    chunks = [c["choices"][0] for c in models["tools"].predict_stream(request) if c["choices"]]
    assert all("content" not in chunk["delta"] for chunk in chunks)
    assert chunks[-1]["delta"]["tool_calls"][0]["function"]["name"] == "weather"
    assert chunks[-1]["finish_reason"] == "tool_calls"


# --- llm/v1/completions ----------------------------------------------------------------------------------------------


def prompt(question: str) -> str:
    return f"<|user|>\n{question}<|end|>\n<|assistant|>\n"


def test_a_dataframe_of_prompts_is_continued_row_by_row(models):
    cities = ["France", "Moldova", "Norway"] * 12
    frame = pd.DataFrame({"prompt": [prompt(f"What is the capital of {city}?") for city in cities]})
    found = models[COMPLETIONS].predict(frame)
    assert found["text"].tolist() == ["Paris", "Chișinău", "Oslo"] * 12
    assert set(found["finish_reason"]) == {"stop"} and found["error"].isna().all()
    cut = models[COMPLETIONS].predict(frame[:2], params={"max_tokens": 1})
    assert (cut["completion_tokens"].tolist(), set(cut["finish_reason"])) == ([1, 1], {"length"})


def test_a_bad_row_has_its_error_and_the_others_their_text(models):
    frame = pd.DataFrame({"prompt": [prompt("What is 2 plus 2?"), "", "word " * 2100, prompt("What is 2 plus 2?")]})
    found = models[COMPLETIONS].predict(frame)
    assert found["text"].tolist()[::3] == ["4", "4"] and found["error"].isna().tolist() == [True, False, False, True]
    assert "prompt is" in found["error"][1] and "at most 2047 fit" in found["error"][2]


def test_completions_are_not_streamed(models):
    with pytest.raises(MlflowException, match="answers whole rows: call predict"):
        list(models[COMPLETIONS].predict_stream({"prompt": "x"}))


def test_a_bad_parameter_is_refused_for_all(models):
    with pytest.raises(MlflowException, match="temperature is 5"):
        models[COMPLETIONS].predict(pd.DataFrame({"prompt": ["x"]}), params={"temperature": 5.0})


def test_parameters_of_completions_reach_the_engine(models):
    frame = pd.DataFrame({"prompt": [prompt("Count from 1 to 40.")]})
    form = json.dumps({"type": "regex", "regex": "[A-Z]{3}"})
    assert models[COMPLETIONS].predict(frame, params={"stop": ["7"]})["text"][0].strip() == "1 2 3 4 5 6"
    assert models[COMPLETIONS].predict(frame, params={"response_format": form})["text"][0].isupper()
    sampled = [models[COMPLETIONS].predict(frame, params={"temperature": 2.0, "seed": 3})["text"][0] for _ in range(2)]
    assert sampled[0] == sampled[1]


# --- Loading and observing -------------------------------------------------------------------------------------------


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
def test_damaged_weights_are_named_when_the_model_is_loaded(folders, tmp_path, damage, message):
    folder = shutil.copytree(folders[CHAT], tmp_path / "model")
    damage(next(folder.rglob("model.onnx.data")))
    with pytest.raises(MlflowException, match=message):
        mlflow.pyfunc.load_model(str(folder))


def test_settings_are_overridden_when_it_is_loaded(folders):
    model = mlflow.pyfunc.load_model(str(folders[CHAT]), model_config={"threads": 1, "parallel": 2})
    assert model.unwrap_python_model()._service.engine.threads == 1
    with pytest.raises(MlflowException, match="provider is 'cuda'; this installation"):
        mlflow.pyfunc.load_model(str(folders[CHAT]), model_config={"provider": "cuda"})


def test_each_request_leaves_a_trace_where_the_config_asks_for_it(folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where the default experiment puts its artifacts
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    try:
        model = mlflow.pyfunc.load_model(str(folders[CHAT]), model_config={"trace": True})
        chat(model)
        list(model.predict_stream({"messages": FRANCE}))
        with pytest.raises(MlflowException):
            chat(model, messages=[{"role": "user", "content": "word " * 2100}])
        with pytest.raises(MlflowException):
            chat(model, temperature=7)
        (dropped := model.predict_stream({"messages": FRANCE})).__next__()
        dropped.close()
        chat(mlflow.pyfunc.load_model(str(folders[CHAT])))  # leaves none
        mlflow.flush_trace_async_logging()
        traces = mlflow.search_traces(locations=["0"], return_type="list")
    finally:
        mlflow.set_tracking_uri(None)
    assert sorted(trace.info.status.value for trace in traces) == ["ERROR", "ERROR", "OK", "OK", "OK"]
    well = [trace for trace in traces if trace.info.status.value == "OK"]
    done = [trace for trace in well if not trace.data.spans[0].attributes.get("cancelled")]
    assert len(done) == 2
    for trace in done:
        span = trace.data.spans[0]
        assert span.inputs["messages"] == FRANCE
        assert span.outputs["choices"][0]["message"]["content"] == "Paris"
        assert span.attributes["mlflow.llm.model"] == "tiny-phi3"
        assert trace.info.token_usage["total_tokens"] == 18
        times = [span.attributes[name] for name in ("queue_ms", "time_to_first_token_ms", "total_ms")]
        assert times == sorted(times) and times[0] >= 0
    assert sorted(trace.data.spans[0].attributes["reused_tokens"] for trace in done) == [0, 14]


def test_no_warning_reaches_the_user_of_a_model_and_no_torch_is_loaded(folders):
    script = (
        "import warnings, sys; warnings.simplefilter('error', DeprecationWarning); "
        "warnings.simplefilter('error', FutureWarning); import mlflow; "
        f"model = mlflow.pyfunc.load_model({str(folders[CHAT])!r}); "
        f"print(model.predict({{'messages': {FRANCE!r}}})[0]['choices'][0]['message']['content']); "
        f"print(len(list(model.predict_stream({{'messages': {FRANCE!r}}})))); "
        "print([name for name in ('torch', 'transformers', 'steps') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=folders[CHAT])
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["Paris", "4", "[]"]
    assert "arning" not in done.stderr


def test_the_stub_that_holds_the_tokenizer_is_what_its_comment_says():
    import onnx

    from steps.chat.runtime.tokenizer import _STUB

    model = onnx.load_from_string(_STUB)
    onnx.checker.check_model(model)
    (node,) = model.graph.node
    assert (node.op_type, [*node.input], [*node.output]) == ("Identity", ["input_ids"], ["logits"])
    assert (model.ir_version, model.opset_import[0].version) == (8, 17)


def test_the_package_imports_nothing_else_of_the_project():
    for path in (ROOT / "steps" / "chat").glob("*.py"):
        text = path.read_text()
        assert "from steps" not in text and "import steps" not in text and "import torch" not in text, path
