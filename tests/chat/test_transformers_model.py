"""The model of the transformers flavor: the requests, answers and refusals of the custom model, over PyTorch."""

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import mlflow
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from steps.evaluation.measure.worker import LoggedModel
from steps.serving.models import ServedModel
from tests.chat.batching.asking import QUESTIONS
from tests.chat.client_requests import ANSWERED, PARIS, REFUSED, WITH_TOOLS
from tests.chat.models import CHAT, COMPLETIONS, FRANCE, TOOL, chat, content

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def model(transformers_models):
    """The chat model."""
    return transformers_models[CHAT]


@pytest.mark.parametrize("name", PARIS)
def test_a_legal_request_is_answered_right(model, name):
    assert content(model.predict(PARIS[name])[0]) == "Paris"


@pytest.mark.parametrize("name", ANSWERED)
def test_a_legal_request_is_answered(model, name):
    assert model.predict(ANSWERED[name] | {"max_tokens": 4})[0]["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize("name", REFUSED)
def test_a_request_is_refused_by_the_name_of_its_field(model, name):
    fields, param, message = REFUSED[name]
    with pytest.raises(MlflowException) as caught:
        model.predict({"messages": FRANCE} | fields)
    assert caught.value.param == param and message in caught.value.message
    assert "secret" not in caught.value.message and "France" not in caught.value.message


@pytest.mark.parametrize("name", WITH_TOOLS)
def test_tools_work_where_the_template_shows_them(transformers_models, name):
    response = transformers_models["tools"].predict(WITH_TOOLS[name] | {"tools": [TOOL], "max_tokens": 4})[0]
    assert response["usage"]["completion_tokens"] > 0
    call = chat(transformers_models["tools"], tools=[TOOL], tool_choice="required", max_tokens=200)["choices"][0]
    assert call["message"]["tool_calls"][0]["function"]["name"] == "weather"


def test_the_flavors_own_pipeline_gives_the_same_answers(model, transformers_folders):
    pipeline = mlflow.transformers.load_model(str(transformers_folders[CHAT]))
    questions = [[{"role": "user", "content": question}] for question in QUESTIONS[:12]]
    expected = [pipeline(question, max_new_tokens=40, do_sample=False)[0]["generated_text"] for question in questions]
    with ThreadPoolExecutor(6) as pool:
        answers = [*pool.map(lambda question: content(chat(model, question, max_tokens=40)), questions)]
    assert answers == [conversation[-1]["content"].strip() for conversation in expected]


def test_the_custom_model_gives_the_same_response(model, models):
    for fields in ({"n": 2, "logprobs": True, "stop": "4"}, {"temperature": 0.5, "seed": 1}, {"frequency_penalty": 1}):
        question = [{"role": "user", "content": "Count from 1 to 9."}]
        first, second = (chat(m, question, max_tokens=12, **fields) for m in (model, models[CHAT]))
        assert [choice["message"] for choice in first["choices"]] == [c["message"] for c in second["choices"]]
        assert first.keys() == second.keys() and first["choices"][0].keys() == second["choices"][0].keys()


def test_an_answer_is_streamed_and_ends_when_its_caller_stops(model):
    deltas = [chunk["choices"][0]["delta"] for chunk in model.predict_stream({"messages": FRANCE})]
    assert deltas == [{"role": "assistant", "content": ""}, {"content": "Par"}, {"content": "is"}, {}]
    chunks = model.predict_stream({"messages": FRANCE, "ignore_eos": True, "max_tokens": 1900})
    next(chunks), next(chunks)
    chunks.close()
    assert content(chat(model)) == "Paris"
    assert model.unwrap_python_model()._service.engine._scheduler.cache.active == []


def test_the_task_of_completions(transformers_models):
    prompt = "<|user|>\nWhat is 2 plus 2?<|end|>\n<|assistant|>\n"
    results = transformers_models[COMPLETIONS].predict(pd.DataFrame({"prompt": [prompt, ""]}))
    assert results["text"].tolist() == ["4", None] and results["completion_tokens"].tolist() == [2, 0]


def test_a_damaged_file_is_named(transformers_folders, tmp_path):
    folder = shutil.copytree(transformers_folders[CHAT], tmp_path / "model")
    (folder / "model" / "model.safetensors").write_bytes(b"")
    with pytest.raises(MlflowException, match="the model's file model/model.safetensors has 0 bytes"):
        mlflow.pyfunc.load_model(str(folder))


def test_a_device_that_is_not_there_is_refused(transformers_folders):
    with pytest.raises(MlflowException, match="provider is 'warp', which PyTorch cannot use here"):
        mlflow.pyfunc.load_model(str(transformers_folders[CHAT]), model_config={"provider": "warp"})


USE = f"""
import sys, mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
print(model.predict({{"messages": {FRANCE}, "stop": ["!"]}})[0]["choices"][0]["message"]["content"])
print([name for name in ("onnxruntime", "onnxruntime_genai", "onnx", "optimum", "steps") if name in sys.modules])
"""


def test_the_model_answers_without_onnx_and_without_this_project(transformers_folders, tmp_path):
    process = subprocess.run(
        [sys.executable, "-c", USE, str(transformers_folders[CHAT])], capture_output=True, text=True, cwd=tmp_path
    )
    assert process.stdout.splitlines()[-2:] == ["Paris", "[]"], process.stderr
    written = [path for path in transformers_folders[CHAT].rglob("__pycache__")]
    assert written == [], "loading changes nothing in the store"


def test_the_server_and_the_evaluation_use_it_as_they_use_the_custom_model(transformers_folders):
    served = ServedModel(str(transformers_folders[CHAT]), "tiny", timeout=60)
    assert served.service is not None and served.context_length == 2048
    measured = LoggedModel(str(transformers_folders[CHAT]), ignore_eos=True)
    answer = measured.answer(FRANCE, 9)
    assert measured.ignores_eos and answer["completion_tokens"] == 9 and not answer["shows_thoughts"]


def test_mlmodel_names_both_flavors(transformers_folders):
    info = mlflow.models.Model.load(str(transformers_folders[CHAT]))
    assert set(info.flavors) == {"transformers", "python_function"}
    assert info.signature.inputs is None and json.loads(info.signature.to_dict()["outputs"])[0]["name"] == "id"
