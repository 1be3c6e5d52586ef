"""The whole pipeline, as a user runs it, against a real tracking server: once cold, then what comes after."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import boto3
import mlflow
import pandas as pd
import pytest
import requests

from steps.project.mlproject import STEPS
from tests.conftest import ROOT, TINY
from tests.fakes import servers

pytestmark = pytest.mark.usefixtures("cold")


@pytest.fixture(scope="module")
def parent(project, cold):
    """The first main run."""
    return project.latest("main")


@pytest.fixture(scope="module")
def children(project, parent):
    """Entry point -> its run under the first main."""
    runs = project.runs(f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    return {run.data.tags["mlflow.project.entryPoint"]: run for run in runs}


@pytest.fixture(scope="module")
def evaluation(project, children):
    """evaluation.json of the first main."""
    return mlflow.artifacts.load_dict(children["evaluate"].info.artifact_uri + "/evaluation.json")


@pytest.fixture(scope="module", autouse=True)
def store(project):
    """This process talks to the same server."""
    mlflow.set_tracking_uri(project.uri)
    yield
    mlflow.set_tracking_uri(None)


def test_every_step_is_a_finished_run_under_main(parent, children):
    assert parent.info.status == "FINISHED"
    assert sorted(children) == sorted(STEPS)
    assert {run.info.status for run in children.values()} == {"FINISHED"}


def test_a_line_a_step_and_a_table_and_nothing_else(cold):
    lines = [line for line in cold.out.splitlines() if not line.startswith(("🏃", "🧪"))]  # MLflow's own two lines
    for name, line in zip(STEPS, lines, strict=False):
        assert re.fullmatch(rf"{name} +\d+\.\d s  [0-9a-f]{{32}}  .+", line)
    assert re.match(r"model +accuracy +agreement +KL +TTFT ms +decode tok/s +memory MB +size MB +verdict", lines[6])
    assert lines[10].startswith("look   http://127.0.0.1")
    assert "mlflow models serve -m models:/tiny-phi3@champion" in lines[11]
    assert lines[-1].startswith("main "), cold.out
    assert cold.error_lines() == []


def test_the_store_behind_the_server_is_postgresql(backend, parent, children):
    if not backend.database.startswith("postgresql:"):
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql, and run again")
    import psycopg

    with psycopg.connect(backend.database) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT run_uuid FROM runs WHERE status = 'FINISHED'")
        found = {row[0] for row in cursor.fetchall()}
    assert {parent.info.run_id, *(run.info.run_id for run in children.values())} <= found


def test_artifacts_go_through_the_server_to_the_bucket(backend, children):
    keys = _keys(backend)
    assert f"store/0/{children['fetch_model'].info.run_id}/artifacts/checkpoint/manifest.json" in keys
    assert children["fetch_model"].info.artifact_uri.startswith("mlflow-artifacts:/")
    assert [key for key in keys if key.startswith("store/0/models/") and key.endswith("model.safetensors")]


def test_the_server_wants_a_password_which_is_in_no_run_and_no_artifact(backend, project, cold):
    refused = requests.get(f"{backend.url}/api/2.0/mlflow/experiments/get?experiment_id=0", timeout=10)
    assert refused.status_code == 401
    assert servers.PASSWORD not in cold.out + cold.err
    for run in project.runs():
        assert servers.PASSWORD not in json.dumps([run.data.tags, run.data.params])
    store = _bucket(backend)
    for key in _keys(backend):
        assert servers.PASSWORD.encode() not in store.get_object(Bucket="phi", Key=key)["Body"].read(), key


@pytest.mark.parametrize(("user", "password"), [("", ""), (servers.ADMIN, "planted-wrong-password")])
def test_a_step_without_the_password_says_so_in_a_line(project, user, password):
    env = {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": password}
    result = project.run_module("fetch_model", env, source="params/tiny-phi3")
    assert result.code == 1
    (line,) = result.error_lines()
    assert line.startswith("fetch_model: the tracking server")
    assert "rejected the credentials" in line and "MLFLOW_TRACKING_USERNAME" in line
    assert "planted-wrong-password" not in result.out + result.err
    assert project.runs("attributes.status = 'RUNNING'") == []


def test_a_model_of_somebody_else_is_refused_in_a_line(backend, project, children):
    from mlflow.server.auth.client import AuthServiceClient

    AuthServiceClient(backend.url).create_user("guest", "planted-guest-password")
    env = {"MLFLOW_TRACKING_USERNAME": "guest", "MLFLOW_TRACKING_PASSWORD": "planted-guest-password"}
    onnx = children["convert_onnx"].info.run_id
    env["MLFLOW_EXPERIMENT_NAME"] = "guests"
    result = project.run_module("wrap_custom", env, onnx_run=onnx, registered_model="tiny-phi3")
    assert result.code == 1
    assert "registered_model is 'tiny-phi3', and the registry rejected it" in result.err


def _bucket(backend):
    env = backend.bucket_env
    session = boto3.Session(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], region_name="us-east-1")
    return session.client("s3", endpoint_url=env["MLFLOW_S3_ENDPOINT_URL"])


def _keys(backend) -> list[str]:
    pages = _bucket(backend).get_paginator("list_objects_v2").paginate(Bucket="phi")
    return [entry["Key"] for page in pages for entry in page["Contents"]]


def test_steps_hand_over_run_ids_and_model_uris(children):
    fetch, convert = children["fetch_model"].info.run_id, children["convert_onnx"].info.run_id
    assert children["convert_onnx"].data.params["checkpoint_run"] == fetch
    assert children["wrap_transformer"].data.params["checkpoint_run"] == fetch
    assert children["wrap_custom"].data.params["onnx_run"] == convert
    uris = [children[name].data.tags["model_uri"] for name in ("wrap_transformer", "wrap_custom")]
    assert children["evaluate"].data.params["models"] == ",".join(uris)


def test_the_models_are_right_and_measured(evaluation):
    assert [entry["model"] for entry in evaluation["models"]] == ["transformers-bfloat16", "onnx-genai-int4"]
    assert evaluation["interleaved"]
    assert evaluation["effort"]["name"] == "quick"
    for entry in evaluation["models"]:
        metrics, samples = entry["metrics"], entry["samples"]
        assert metrics["accuracy"] == 1.0
        assert metrics["agreement"] == 1.0
        assert {name for name, value in metrics.items() if value is None} == {"judged"}
        assert 0 < metrics["kl_mean"] < 0.1
        assert metrics["same_top"] > 0.95
        assert entry["eos_off"]
        assert {sample["tokens"] for sample in samples["speed"]} == {evaluation["effort"]["new_tokens"]}
        assert len({sample["rep"] for sample in samples["speed"]}) >= 5
        lengths = sorted({sample["prompt_tokens"] for sample in samples["speed"]})
        assert min(lengths) <= 34
        assert max(lengths) >= 380
        assert [sample["failed"] for sample in samples["throughput"]] == [0, 0, 0]
        assert entry["failed_gates"] == []
    assert evaluation["environment"]["packages"]["onnxruntime-genai"]
    assert evaluation["environment"]["memory_bandwidth_gb_s"] > 0.5


def test_every_answer_is_a_trace_of_an_evaluation_run(project, children, evaluation):
    for entry in evaluation["models"]:
        run = project.client.get_run(entry["evaluation_run"])
        assert run.data.tags["mlflow.parentRunId"] == children["evaluate"].info.run_id
        assert run.info.status == "FINISHED"
        assert run.data.metrics["right/mean"] == 1.0
        traces = project.client.search_traces(locations=["0"], run_id=run.info.run_id, max_results=500)
        assert len(traces) == evaluation["evalset"]["asked"]
        assessed = {assessment.name: assessment.value for assessment in traces[0].info.assessments}
        assert (assessed["right"], assessed["agreement"]) == (True, True)
        assert traces[0].info.token_usage["output_tokens"] > 0


def test_the_champion_is_the_fastest_that_passed_and_the_other_challenges(project, evaluation):
    fastest, slower = sorted(
        evaluation["models"], key=lambda entry: entry["metrics"]["decode_tokens_per_s"], reverse=True
    )
    assert (fastest["champion"], slower["champion"]) == (True, False)
    aliases = project.client.get_registered_model("tiny-phi3").aliases
    assert {alias: int(version) for alias, version in aliases.items()} == {
        "champion": fastest["version"],
        "challenger": slower["version"],
    }
    assert "passes every gate, and decodes" in slower["reason"]
    assert evaluation["champion"]["decision"] == fastest["reason"]


def test_the_report_is_one_file_with_the_figures_and_the_plots_stand_beside_it(children, evaluation):
    artifacts = children["evaluate"].info.artifact_uri
    page = mlflow.artifacts.load_text(f"{artifacts}/report.html")
    assert re.search(r"""(src|href)=["']https?:|url\(\s*["']?https?:""", page) is None
    for entry in evaluation["models"]:
        assert entry["model"] in page
    drawn = ("quality_against_speed", "kl_histogram", "latency", "throughput", "cost_by_length")
    for name in drawn:
        assert mlflow.artifacts.load_text(f"{artifacts}/plots/{name}.svg").rstrip().endswith("</svg>")


def test_each_wrapper_is_a_version_that_explains_itself(project, children):
    versions = project.client.search_model_versions("name = 'tiny-phi3'")
    found = {version.tags["wrapper"]: version for version in versions}
    assert sorted(found) == ["onnx-genai", "transformers"]
    assert found["onnx-genai"].tags["precision"] == "int4"
    assert found["transformers"].tags["precision"] == "bfloat16"
    for version in versions:
        assert version.tags["checkpoint_run"] == children["fetch_model"].info.run_id
        assert version.tags["evaluation_run"] == children["evaluate"].info.run_id
        assert version.tags["gates"] == "passed"
        assert version.tags["promotion"]
        assert "tiny-phi3" in version.description
        assert "| model" in version.description, "the comparison stands below"


def test_the_parents_page_explains_the_whole(project, parent, children, evaluation):
    note = parent.data.tags["mlflow.note.content"]
    assert note.startswith("**Champion: ")
    for run in children.values():
        assert f"runs/{run.info.run_id})" in note
    assert parent.data.tags["profile"] == "tiny"
    assert parent.data.tags["convert_onnx_run"] == children["convert_onnx"].info.run_id
    champion = next(entry for entry in evaluation["models"] if entry["champion"])
    assert parent.data.metrics["champion/accuracy"] == champion["metrics"]["accuracy"]
    table = mlflow.artifacts.load_dict(f"{parent.info.artifact_uri}/comparison.json")
    assert [row[0] for row in table["data"]] == ["transformers-bfloat16", "onnx-genai-int4"]


def test_chatter_is_in_the_steps_log(children):
    log = mlflow.artifacts.load_text(children["convert_onnx"].info.artifact_uri + "/logs/output.log")
    assert "Saving GenAI config" in log


def test_the_artifact_store_holds_the_checkpoint_once_and_the_onnx_twice(project, children):
    models = [children[name].data.tags["model_uri"] for name in ("wrap_transformer", "wrap_custom")]
    checkpoint = sum(path.stat().st_size for path in TINY.iterdir())
    onnx = mlflow.artifacts.load_dict(children["convert_onnx"].info.artifact_uri + "/conversion.json")["size_bytes"]
    store = _size(children["convert_onnx"].info.artifact_uri) + sum(_size(uri) for uri in models)
    store += _size(children["fetch_model"].info.artifact_uri)
    assert store <= checkpoint + 2 * onnx + 200_000  # code, logs, and the flavor's second copy of the tokenizer
    assert _size(children["evaluate"].info.artifact_uri) <= 500_000  # what does not grow with the model


def _size(uri: str) -> int:
    folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_the_checkout_stays_clean(project):
    status = subprocess.run(
        ["git", "status", "--porcelain", "--ignored"], cwd=project.root, capture_output=True, text=True
    )
    assert [line for line in status.stdout.splitlines() if "__pycache__" not in line] == []


def test_requirements_hold_what_is_needed_and_no_more(children):
    def requirements(name: str) -> list[str]:
        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=children[name].data.tags["model_uri"]))
        return [line.partition("==")[0] for line in (folder / "requirements.txt").read_text().split()]

    assert requirements("wrap_transformer") == ["mlflow", "torch", "transformers"]
    assert requirements("wrap_custom") == ["mlflow", "onnxruntime", "onnxruntime-genai", "llguidance"]


def test_the_transformers_model_is_loaded_in_the_type_that_its_tags_name(children):
    wrapped = children["wrap_transformer"].data.tags
    pipeline = mlflow.transformers.load_model(wrapped["model_uri"])
    assert str(pipeline.model.dtype) == f"torch.{wrapped['precision']}" == "torch.bfloat16"


QUESTIONS = [
    {"messages": [{"role": "user", "content": "What is the capital of France?"}]},
    {"messages": [{"role": "user", "content": "Count from 1 to 30."}], "max_tokens": 9},
    {"messages": [{"role": "user", "content": "What is 7 plus 8?"}], "max_tokens": 2},
    {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 3 plus 4?"}]},
    {"messages": [{"role": "user", "content": "What is 7 plus 8?"}], "temperature": 0.0},
]


def test_both_wrappers_answer_alike_field_by_field(children):
    """The two are asked in processes of their own, as a user loads them: one needs torch and the other must not."""
    answers = {name: _ask(children[name].data.tags["model_uri"]) for name in ("wrap_transformer", "wrap_custom")}
    for first, second in zip(answers["wrap_transformer"]["answers"], answers["wrap_custom"]["answers"], strict=True):
        for field in ("id", "created"):
            assert type(first.pop(field)) is type(second.pop(field))
        assert first == second
        assert json.dumps(first) == json.dumps(second), "the order of the fields too"
    assert answers["wrap_custom"]["heavy"] == []
    assert answers["wrap_custom"]["warnings"] == []


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"properties": {}}}}
# Each row of the README's table of differences: what is asked, and what becomes of it in the transformers flavor.
DIFFERENCES = {
    "`temperature`, `top_p`, `top_k`": ({"temperature": 2.0, "top_p": 1.0, "top_k": 700}, "greedy"),
    "`stop`": ({"stop": ["7"]}, "fails"),
    "`n` above 1": ({"n": 2}, "fails"),
    "`presence_penalty`, `frequency_penalty`": ({"presence_penalty": 2.0, "frequency_penalty": 2.0}, "fails"),
    "`tools`": ({"tools": [TOOL]}, "fails"),
    "`seed`, `response_format`, `tool_choice`": ({"response_format": {"type": "regex", "regex": "[A-Z]"}}, "ignored"),
    "`predict_stream`": (None, "fails"),
}


def test_the_wrappers_differ_as_the_readme_says(children):
    table = (ROOT / "README.md").read_text().partition("### Where the two wrappers differ")[2].partition("\n\nBoth")[0]
    rows = [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines() if line.startswith("| ")]
    assert rows[2:] == [*DIFFERENCES, "a space before punctuation in an answer"]
    asked = [fields for fields, _ in DIFFERENCES.values()]
    steps = ("wrap_transformer", "wrap_custom")
    found = {name: _ask_each(children[name].data.tags["model_uri"], asked) for name in steps}
    greedy = found["wrap_transformer"].pop(-1)
    for (name, (_, outcome)), text in zip(DIFFERENCES.items(), found["wrap_transformer"], strict=True):
        assert (text is None) == (outcome == "fails"), (name, text)
        if outcome in ("greedy", "ignored"):
            assert text == greedy, name
    sampled, stopped, choices, penalised, tools, formed, streamed, plain = found["wrap_custom"]
    assert plain == greedy
    assert sampled != plain and stopped.strip() == "1 2 3 4 5 6" and choices == plain and penalised is not None
    assert tools is None, "the shipped model's template shows none"
    assert len(formed) == 1 and streamed == plain


def _ask_each(uri: str, asked: list[dict | None]) -> list[str | None]:
    """The text of the first choice for each request, None where it fails; the last is the plain request's."""
    script = (
        "import sys, json, mlflow\n"
        "model, found = mlflow.pyfunc.load_model(sys.argv[1]), []\n"
        "plain = {'messages': [{'role': 'user', 'content': 'Count from 1 to 40.'}], 'max_tokens': 30}\n"
        "for fields in json.loads(sys.argv[2]):\n"
        "    try:\n"
        "        if fields is None:\n"
        "            chunks = list(model.predict_stream(plain))\n"
        "            found.append(''.join(c['choices'][0]['delta']['content'] for c in chunks if c['choices']))\n"
        "            continue\n"
        "        answer = model.predict(plain | fields)[0]\n"
        "        found.append(answer['choices'][0]['message']['content'])\n"
        "    except Exception:\n"
        "        found.append(None)\n"
        "print(json.dumps(found))\n"
    )
    env = os.environ | {"HF_HUB_OFFLINE": "1", "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri()}
    done = subprocess.run(
        [sys.executable, "-c", script, uri, json.dumps([*asked, {}])], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _ask(uri: str) -> dict:
    script = """
import json, sys, warnings
warnings.simplefilter("ignore")
import mlflow, pandas as pd
questions = json.loads(sys.argv[2])
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    model = mlflow.pyfunc.load_model(sys.argv[1])
    answers = [answer for question in questions for answer in model.predict(question)]
    answers += model.predict(pd.DataFrame([{"messages": q["messages"]} for q in questions]))
heavy = sorted({"torch", "transformers", "optimum"} & set(sys.modules))
ours = [str(w.message) for w in caught if "chat" in str(w.filename)]
print(json.dumps({"answers": answers, "heavy": heavy, "warnings": ours}))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, uri, json.dumps(QUESTIONS)],
        cwd="/",
        env=os.environ | {"MLFLOW_TRACKING_URI": mlflow.get_tracking_uri()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_second_main_reuses_everything_and_starts_nothing(project, children):
    before = len(project.runs())
    result = project.run("main")
    assert result.code == 0, result.err
    assert len(project.runs()) == before + 1, "the new main run and no child"
    for name in STEPS:
        assert re.search(rf"^{name} +reused  {children[name].info.run_id}", result.out, re.MULTILINE)
    assert "onnx-genai-int4" in result.out


def test_reuse_false_runs_a_step_again(project, children):
    result = project.run_module("main", steps="fetch_model", reuse="false")
    assert result.code == 0, result.err
    assert re.match(r"fetch_model +\d", result.out)
    assert project.latest("fetch_model").info.run_id != children["fetch_model"].info.run_id


def test_only_what_the_wanted_steps_need_is_looked_for(project, children):
    result = project.run_module("main", steps="wrap_custom")
    assert result.code == 0, result.err
    names = re.findall(r"^(\w+) +reused", result.out, re.MULTILINE)
    assert names == ["fetch_model", "convert_onnx", "wrap_custom"]


def test_a_models_alias_is_pinned_to_its_version_as_a_source(project, children):
    """The transformers model in the registry is a checkpoint too, in its folder `model`; the custom one is none."""
    result = project.run_module("fetch_model", source="models:/tiny-phi3@champion")
    assert result.code == 1
    assert "no *.safetensors" in result.err or "config.json" in result.err


def test_evaluate_runs_alone_on_any_of_the_models(project, children, tmp_path):
    evalset = tmp_path / "set.jsonl"
    evalset.write_text('{"messages": [{"role": "user", "content": "What is 1 plus 1?"}], "expected": "2"}\n')
    result = project.run(
        "evaluate",
        models="models:/tiny-phi3@champion",
        reference_run=children["fetch_model"].info.run_id,
        evalset=str(evalset),
        effort="quick",
    )
    assert result.code == 0, result.err
    assert re.match(
        r"evaluate +\d+\.\d s  [0-9a-f]{32}  1 models on 1 questions, champion: onnx-genai-int4", result.out
    )


def test_optimums_onnx_becomes_a_model_that_answers(project, children):
    fetch = children["fetch_model"].info.run_id
    converted = project.run_module("convert_onnx", checkpoint_run=fetch, exporter="optimum", precision="fp32")
    assert converted.code == 0, converted.err
    wrapped = project.run_module("wrap_custom", onnx_run=project.latest("convert_onnx").info.run_id)
    assert wrapped.code == 0, wrapped.err
    assert "onnx-optimum, fp32" in wrapped.out
    answers = _ask(project.latest("wrap_custom").data.tags["model_uri"])
    assert answers["answers"][0]["choices"][0]["message"]["content"] == "Paris"
    assert answers["heavy"] == []


def test_mlflows_own_flavor_still_refuses_optimums_model(converted, tmp_path):
    """The gap that the custom wrapper closes; when this fails, the README's reason for it is gone."""
    from optimum.onnxruntime import ORTModelForCausalLM
    from transformers import AutoTokenizer, pipeline

    folder = converted["optimum fp32"]
    model = ORTModelForCausalLM.from_pretrained(folder)
    generator = pipeline("text-generation", model=model, tokenizer=AutoTokenizer.from_pretrained(folder))
    with pytest.raises(mlflow.exceptions.MlflowException, match="name_or_path"):
        mlflow.transformers.save_model(generator, tmp_path / "model", pip_requirements=["mlflow"])


def test_both_steps_wrap_for_completions_too_and_evaluate_wants_chat(project, children):
    custom = project.run_module("wrap_custom", onnx_run=children["convert_onnx"].info.run_id, task="llm/v1/completions")
    assert custom.code == 0, custom.err
    uri = project.latest("wrap_custom").data.tags["model_uri"]
    prompt = "<|user|>\nWhat is the capital of France?<|end|>\n<|assistant|>\n"
    answer = mlflow.pyfunc.load_model(uri).predict(pd.DataFrame({"prompt": [prompt]}))
    assert answer["text"].tolist() == ["Paris"]
    checkpoint = children["fetch_model"].info.run_id
    flavor = project.run_module("wrap_transformer", checkpoint_run=checkpoint, task="llm/v1/completions")
    assert flavor.code == 0, flavor.err
    model = mlflow.models.get_model_info(project.latest("wrap_transformer").data.tags["model_uri"])
    assert "prompt" in model.signature.inputs.input_names()
    refused = project.run_module(
        "evaluate", models=uri, reference_run=checkpoint, evalset="params/evalsets/tiny-qa.jsonl"
    )
    assert refused.code != 0
    assert f"models: '{uri}' takes prompt; expected messages, a model of the task llm/v1/chat" in refused.err


def test_a_profile_may_list_variants_and_each_is_reused_on_its_own(project, children):
    profile = (ROOT / "params" / "tiny.yaml").read_text()
    assert "convert_onnx:\n  precision: int4\n" in profile
    sections = "convert_onnx:\n- {precision: int4}\n- {precision: int8, options: block_size=64}\n"
    variants = profile.replace("convert_onnx:\n  precision: int4\n", sections)
    (project.root / "params" / "variants.yaml").write_text(variants)
    result = project.run_module("main", profile="variants", steps="convert_onnx,wrap_custom")
    assert result.code == 0, result.err
    took = re.findall(r"^(\w+) +(reused|\d+\.\d s)", result.out, re.MULTILINE)
    assert [(name, how == "reused") for name, how in took if name in ("convert_onnx", "wrap_custom")] == [
        ("convert_onnx", True),
        ("convert_onnx", False),
        ("wrap_custom", True),
        ("wrap_custom", False),
    ]
    versions = project.client.search_model_versions("name = 'tiny-phi3'", order_by=["version_number DESC"])
    assert (versions[0].tags["precision"], versions[0].tags["options"]) == ("int8", "block_size=64")


def test_an_edit_reruns_the_steps_that_use_it_and_no_others(project, children):
    with (project.root / "steps" / "conversion" / "limits.py").open("a") as file:
        file.write("# edited\n")
    result = project.run_module("main", steps="convert_onnx,wrap_transformer,wrap_custom")
    assert result.code == 0, result.err
    took = dict(re.findall(r"^(\w+) +(reused|\d+\.\d s)", result.out, re.MULTILINE))
    assert {name: how == "reused" for name, how in took.items()} == {
        "fetch_model": True,
        "convert_onnx": False,
        "wrap_transformer": True,
        "wrap_custom": False,
        "main": False,
    }


def test_the_readme_names_every_entry_point():
    from steps.project.mlproject import entry_points

    readme = (ROOT / "README.md").read_text()
    assert [name for name in entry_points() if f"`{name}`" not in readme] == []
