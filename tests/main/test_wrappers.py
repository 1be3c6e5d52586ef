"""The two logged models of the first main, asked as a user asks them: where they agree, and where they differ."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow.entities import Run

from tests.checkout import ROOT

pytestmark = pytest.mark.e2e


def ask_in_a_new_process(script: str, uri: str, questions: list[Any], **env: str) -> Any:
    """Run a script with a model's URI and JSON as its arguments. Return the JSON of its last line of output."""
    done = subprocess.run(
        [sys.executable, "-c", script, uri, json.dumps(questions)],
        cwd="/",
        env=os.environ | {"MLFLOW_TRACKING_URI": mlflow.get_tracking_uri()} | env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def requirements(run: Run) -> list[str]:
    """Return the names of the packages that a logged model requires."""
    folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=run.data.tags["model_uri"]))
    return [line.partition("==")[0] for line in (folder / "requirements.txt").read_text().split()]


def test_requirements_hold_what_is_needed_and_no_more(children):
    shared = ["tokenizers", "jinja2", "llguidance", "numpy"]
    assert requirements(children["wrap_transformer"]) == ["mlflow", "torch", "transformers", *shared]
    assert requirements(children["wrap_custom"]) == ["mlflow", "onnxruntime", *shared]


def test_the_transformers_model_is_loaded_in_the_type_that_its_tags_name(children):
    tags = children["wrap_transformer"].data.tags
    pipeline = mlflow.transformers.load_model(tags["model_uri"])
    assert str(pipeline.model.dtype) == f"torch.{tags['precision']}" == "torch.bfloat16"


QUESTIONS: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": "What is the capital of France?"}]},
    {"messages": [{"role": "user", "content": "Count from 1 to 30."}], "max_tokens": 9},
    {"messages": [{"role": "user", "content": "What is 7 plus 8?"}], "max_tokens": 2},
    {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 3 plus 4?"}]},
    {"messages": [{"role": "user", "content": "What is 7 plus 8?"}], "temperature": 0.0},
]
# Each question is asked on its own, then all of them as one DataFrame.
ASK_AND_WATCH = """
import json, sys, warnings
warnings.simplefilter("ignore")
import mlflow, pandas as pd
questions = json.loads(sys.argv[2])
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    model = mlflow.pyfunc.load_model(sys.argv[1])
    answers = [answer for question in questions for answer in model.predict(question)]
    answers += model.predict(pd.DataFrame([{"messages": question["messages"]} for question in questions]))
heavy = sorted({"torch", "transformers", "optimum"} & set(sys.modules))
ours = [str(warning.message) for warning in caught if "chat" in str(warning.filename)]
print(json.dumps({"answers": answers, "heavy": heavy, "warnings": ours}))
"""


def ask_and_watch(uri: str) -> dict[str, Any]:
    """Return a model's answers to QUESTIONS, the heavy packages that it imported, and its warnings."""
    return ask_in_a_new_process(ASK_AND_WATCH, uri, QUESTIONS)


def test_both_wrappers_answer_alike_field_by_field(children):
    flavor, custom = (ask_and_watch(children[name].data.tags["model_uri"]) for name in STEPS_THAT_WRAP)
    for first, second in zip(flavor["answers"], custom["answers"], strict=True):
        for field in ("id", "created", "system_fingerprint"):
            assert type(first.pop(field)) is type(second.pop(field))
        assert first == second
        assert json.dumps(first) == json.dumps(second), "the order of the fields too"
    assert custom["heavy"] == []
    assert custom["warnings"] == []


STEPS_THAT_WRAP = ("wrap_transformer", "wrap_custom")
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"properties": {}}}}
# Requests that the flavor's own python_function refuses, fails at, or takes and ignores. None: asked for as a stream.
REQUESTS: list[dict[str, Any] | None] = [
    {},
    None,
    {"n": 2, "stop": "7", "stream": False, "tools": []},
    {"temperature": 2, "top_k": 700, "seed": 1},
    {"response_format": {"type": "regex", "regex": "[A-Z]"}},
    {"presence_penalty": 2.0, "frequency_penalty": 2.0, "max_completion_tokens": 3},
    {"tools": [TOOL]},
    {"max_token": 5},
    {"messages": [{"role": "user", "content": None}]},
    {"messages": [{"role": "tool", "content": "5"}]},
    {"messages": [{"role": "user", "content": "word " * 20_000}]},
]
# The texts of the choices for each request, or the message of its refusal.
ASK_EACH = """
import json, sys
import mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
plain = {"messages": [{"role": "user", "content": "Count from 1 to 40."}], "max_tokens": 30}
answers = []
for fields in json.loads(sys.argv[2]):
    try:
        if fields is None:
            chunks = [chunk for chunk in model.predict_stream(plain) if chunk["choices"]]
            answers.append(["".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)])
        else:
            answers.append([choice["message"]["content"] for choice in model.predict(plain | fields)[0]["choices"]])
    except mlflow.MlflowException as error:
        answers.append(error.message)
print(json.dumps(answers))
"""


def test_both_wrappers_answer_and_refuse_alike(children):
    torch, onnx = (
        ask_in_a_new_process(ASK_EACH, children[n].data.tags["model_uri"], REQUESTS) for n in STEPS_THAT_WRAP
    )
    for answers in (torch, onnx):
        (plain,), (streamed,), stopped, (sampled,), (formatted,), (penalised,), *refused = answers
        assert streamed == plain and [text.strip() for text in stopped] == ["1 2 3 4 5 6"] * 2
        assert sampled != plain and len(formatted) == 1 and plain.startswith(penalised[:1])
        assert all(isinstance(message, str) for message in refused)
    assert torch[0] == onnx[0] and torch[6:] == onnx[6:]
    assert "at most 2047 fit" in torch[-1] and "did you mean max_tokens?" in torch[7]


def test_the_table_of_differences_is_true(children):
    readme = (ROOT / "steps" / "chat" / "README.md").read_text()
    table = readme.partition("## Where the two wrappers differ")[2].partition("\n## ")[0]
    rows = [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines() if line.startswith("| ")]
    tested_elsewhere = ["weights", "packages", "requests at the same time"]  # above, and tests/benchmarks
    assert rows[2:] == [*tested_elsewhere, "`mlflow.transformers.load_model`", "architectures"]
    flavors = [mlflow.models.get_model_info(children[name].data.tags["model_uri"]).flavors for name in STEPS_THAT_WRAP]
    assert [sorted(names) for names in flavors] == [["python_function", "transformers"], ["python_function"]]


def test_optimums_onnx_becomes_a_model_that_answers(project, children):
    fetch = children["fetch_model"].info.run_id
    converted = project.run_module("convert_onnx", checkpoint_run=fetch, exporter="optimum", precision="fp32")
    assert converted.code == 0, converted.err
    wrapped = project.run_module("wrap_custom", onnx_run=project.latest("convert_onnx").info.run_id)
    assert wrapped.code == 0, wrapped.err
    assert "onnx-optimum, fp32" in wrapped.out
    result = ask_and_watch(project.latest("wrap_custom").data.tags["model_uri"])
    assert result["answers"][0]["choices"][0]["message"]["content"] == "Paris"
    assert result["heavy"] == []


def test_mlflows_own_flavor_still_refuses_optimums_model(converted, tmp_path):
    """The custom wrapper closes this gap. When the test fails, the README's reason for the wrapper is gone."""
    from optimum.onnxruntime import ORTModelForCausalLM
    from transformers import AutoTokenizer, pipeline

    folder = converted["optimum fp32"]
    model = ORTModelForCausalLM.from_pretrained(folder)
    generator = pipeline("text-generation", model=model, tokenizer=AutoTokenizer.from_pretrained(folder))
    with pytest.raises(mlflow.exceptions.MlflowException, match="name_or_path"):
        mlflow.transformers.save_model(generator, tmp_path / "model", pip_requirements=["mlflow"])


@pytest.fixture(scope="module")
def completions_model(project, children) -> str:
    """The URI of the custom model, logged for the task llm/v1/completions."""
    result = project.run_module("wrap_custom", onnx_run=children["convert_onnx"].info.run_id, task="llm/v1/completions")
    assert result.code == 0, result.err
    return project.latest("wrap_custom").data.tags["model_uri"]


def test_wrap_custom_wraps_for_completions_too(completions_model):
    prompt = "<|user|>\nWhat is the capital of France?<|end|>\n<|assistant|>\n"
    answer = mlflow.pyfunc.load_model(completions_model).predict(pd.DataFrame({"prompt": [prompt]}))
    assert answer["text"].tolist() == ["Paris"]


def test_wrap_transformer_wraps_for_completions_too(project, children):
    checkpoint = children["fetch_model"].info.run_id
    result = project.run_module("wrap_transformer", checkpoint_run=checkpoint, task="llm/v1/completions")
    assert result.code == 0, result.err
    prompt = "<|user|>\nWhat is the capital of France?<|end|>\n<|assistant|>\n"
    model = mlflow.pyfunc.load_model(project.latest("wrap_transformer").data.tags["model_uri"])
    assert model.predict(pd.DataFrame({"prompt": [prompt, ""]}))["text"].tolist() == ["Paris", None]


def test_evaluate_refuses_a_model_for_completions(project, children, completions_model):
    checkpoint, evalset = children["fetch_model"].info.run_id, "params/evalsets/tiny-qa.jsonl"
    result = project.run_module("evaluate", models=completions_model, reference_run=checkpoint, evalset=evalset)
    assert result.code != 0
    expected = (
        f"models: '{completions_model}' takes prompt; expected a model that takes messages, of the task llm/v1/chat"
    )
    assert expected in result.err
