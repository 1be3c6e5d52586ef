"""evaluate as a user runs it: a good version, a quantisation that was spoilt, a model of another project."""

import json
import math
import re
import shutil
from pathlib import Path

import mlflow
import numpy as np
import pytest

from steps.evaluation.report.wording import verdict_sentence
from steps.evaluation.results import ChampionDecision, Evaluation
from tests.checkout import ROOT
from tests.conversion.records import conversion_of
from tests.fakes import judge as judges

pytestmark = pytest.mark.e2e
NAME = "judged"
ALIEN = """
import os
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

class Parrot(PythonModel):
    def predict(self, context, model_input, params=None):
        if "die" in str(model_input.iloc[0]["messages"]):
            os.kill(os.getpid(), 9)
        choice = {"index": 0, "message": {"role": "assistant", "content": "Paris"}, "finish_reason": "stop"}
        return [{"choices": [choice]} for _ in range(len(model_input))]

set_model(Parrot())
"""


@pytest.fixture(scope="module")
def asked(tmp_path_factory) -> Path:
    """Twenty questions that the shipped model knows."""
    path = tmp_path_factory.mktemp("set") / "set.jsonl"
    lines = (ROOT / "params/evalsets/tiny-qa.jsonl").read_text().splitlines()[::12]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def conversion(local, fetched) -> Path:
    """The ONNX folder of a finished convert_onnx run."""
    result = local.run_module("convert_onnx", checkpoint_run=fetched)
    assert result.code == 0, result.err
    return Path(mlflow.artifacts.download_artifacts(local.latest("convert_onnx").info.artifact_uri + "/onnx"))


@pytest.fixture(scope="module")
def good(local, conversion) -> str:
    """The URI of version 1."""
    result = local.run_module("wrap_custom", onnx_run=local.latest("convert_onnx").info.run_id, registered_model=NAME)
    assert result.code == 0, result.err
    return local.latest("wrap_custom").data.tags["model_uri"]


@pytest.fixture(scope="module")
def bad(local, good, conversion, tmp_path_factory) -> str:
    """The URI of version 2: one weight in three of the 4-bit blocks is replaced by noise."""
    from steps.conversion.record import Conversion
    from steps.wrap_custom import model_arguments

    scratch = tmp_path_factory.mktemp("bad")
    folder = shutil.copytree(conversion, scratch / "onnx")
    _spoil(folder)
    artifacts = local.latest("convert_onnx").info.artifact_uri
    record = Conversion.parse(mlflow.artifacts.load_text(artifacts + "/conversion.json"), "conversion.json")
    record = record.model_copy(update={"files": conversion_of(folder).files})
    with local.in_this_process(), mlflow.start_run(experiment_id="0"):
        info = mlflow.pyfunc.log_model(
            name="bad",
            registered_model_name=NAME,
            metadata={"variant": "spoilt"},
            **model_arguments(folder, record, "llm/v1/chat", scratch),
        )
    return info.model_uri


def _spoil(folder: Path) -> None:
    """Put noise into the 4-bit weights. Scales and the other tensors stay as they are."""
    import onnx

    graph = onnx.load(folder / "model.onnx", load_external_data=False).graph
    quantised = {node.input[1] for node in graph.node if node.op_type == "MatMulNBits"}
    data = np.memmap(folder / "model.onnx.data", np.uint8, "r+")
    generator = np.random.default_rng(0)
    for tensor in graph.initializer:
        if tensor.name in quantised:
            data_range = {entry.key: int(entry.value) for entry in tensor.external_data if entry.key != "location"}
            start, end = data_range["offset"], data_range["offset"] + data_range["length"]
            chosen = start + generator.choice(end - start, (end - start) // 3, replace=False)
            data[chosen] = generator.integers(0, 256, len(chosen), dtype=np.uint8)
    data.flush()


def evaluate(local, asked: Path, fetched: str, models: str, env: dict[str, str] | None = None, **more: str):
    params = {"evalset": str(asked), "text": str(asked), "gates": "params/gates/tiny.yaml", "effort": "quick"}
    return local.run_module("evaluate", env, models=models, reference_run=fetched, **params | more)


def evaluated(local) -> Evaluation:
    """Return what the latest evaluation found."""
    text = mlflow.artifacts.load_text(local.latest("evaluate").info.artifact_uri + "/evaluation.json")
    return Evaluation.parse(text, "evaluation.json")


def aliases(local) -> dict[str, str]:
    return {alias: str(version) for alias, version in local.client.get_registered_model(NAME).aliases.items()}


@pytest.fixture(scope="module")
def judge():
    """An endpoint on loopback that calls every answer correct: its URL, and the requests to it."""
    with judges.judge() as running:
        yield running


@pytest.fixture(scope="module")
def promoted(local, asked, fetched, good, judge):
    """The evaluation of version 1, with a judge."""
    url, requests = judge
    env = {"OPENAI_API_BASE": url, "OPENAI_API_KEY": "planted-secret"}
    result = evaluate(local, asked, fetched, good, env, registered_model=NAME, judge="openai:/judge")
    assert result.code == 0, result.err
    assert len(requests) == 20, "one request for each question"
    return evaluated(local)


def test_a_judge_is_asked_if_the_user_names_one(local, promoted):
    assert promoted.models[0].value("judged") == 1.0
    for file in (path for path in local.home.rglob("*") if path.is_file()):
        assert b"planted-secret" not in file.read_bytes(), file


def test_a_bad_quantisation_fails_its_gates_and_is_not_promoted(local, asked, fetched, promoted, bad):
    assert promoted.champion == ChampionDecision(
        registered_model=NAME,
        version_before=None,
        version_after=1,
        label="onnx-genai-int4",
        summary="onnx-genai-int4 passes every gate; there was no champion",
        has_aliases=True,
    )

    result = evaluate(local, asked, fetched, bad, registered_model=NAME)
    assert result.code == 1
    assert re.search(r"evaluate: no model passes every gate of .*spoilt: accuracy 0\S* < 0.98", result.err), result.err
    assert aliases(local) == {"champion": "1", "challenger": "2"}
    run = local.latest("evaluate")
    assert (run.info.status, run.data.tags["rejected"]) == ("FAILED", "true")
    evaluation = evaluated(local)
    spoilt, champion = evaluation.models
    assert (spoilt.given, champion.given) == (True, False), "the champion was measured beside it"
    assert (spoilt.value("kl_mean") or 0) > 100 * (champion.value("kl_mean") or math.inf)
    assert (champion.failed_gates, champion.is_champion) == ((), True)
    (pair,) = evaluation.pairs
    assert pair.p_worse < 0.01
    assert verdict_sentence(evaluation).endswith("(version 1 of judged), as before: no given model passed every gate")
    tags = local.client.get_model_version(NAME, "2").tags
    assert tags["promotion"].startswith("fails: accuracy ")
    assert tags["gates"].startswith("accuracy ")
    assert local.runs("attributes.status = 'RUNNING'") == []


def test_a_new_version_replaces_a_champion_that_cannot_be_loaded(local, asked, fetched, bad, good):
    """The files of version 1 are gone. Gates that do not compare with the champion still hold."""
    onnx = local.latest("convert_onnx").info.run_id
    assert local.run_module("wrap_custom", onnx_run=onnx, registered_model=NAME).code == 0
    fresh = local.latest("wrap_custom").data.tags["model_uri"]
    folder = Path(local.client.get_logged_model(good.removeprefix("models:/")).artifact_location)
    (folder / "artifacts/onnx/model.onnx").rename(folder / "gone")
    try:
        result = evaluate(local, asked, fetched, fresh, registered_model=NAME)
    finally:
        (folder / "gone").rename(folder / "artifacts/onnx/model.onnx")
    assert result.code == 0, result.err
    assert "evaluate: the present champion is left out of the comparison: models:/judged/1 could not" in result.err
    assert aliases(local) == {"champion": "3", "previous": "1", "challenger": "2"}


@pytest.fixture(scope="module")
def alien(tmp_path_factory) -> Path:
    """A saved model that answers Paris, and dies if the question tells it to."""
    from mlflow.models import ModelSignature
    from mlflow.types.llm import CHAT_MODEL_INPUT_SCHEMA

    folder = tmp_path_factory.mktemp("alien")
    (folder / "parrot.py").write_text(ALIEN)
    mlflow.pyfunc.save_model(
        folder / "model",
        python_model=str(folder / "parrot.py"),
        signature=ModelSignature(CHAT_MODEL_INPUT_SCHEMA),
        pip_requirements=["mlflow"],
    )
    return folder / "model"


def test_a_model_of_another_project_is_measured_as_far_as_it_can_be(local, asked, fetched, alien, tmp_path):
    (tmp_path / "gates.yaml").write_text("kl_mean: {max: 9}\naccuracy: {max: 0.5}\n")
    result = evaluate(local, asked, fetched, str(alien), gates=str(tmp_path / "gates.yaml"))
    assert result.code == 1
    assert "kl_mean could not be measured" in result.err
    (model,) = evaluated(local).models
    assert model.no_fidelity_reason == "evaluate cannot read the logits of this kind of model"
    assert model.value("decode_tokens_per_s") is None, "it counts no tokens"
    assert (model.value("ttft_ms") or 0) > 0
    assert [gate.passed for gate in model.gates] == [False, True]


def test_a_model_whose_process_dies_at_a_question_fails_the_step_in_one_line(local, fetched, alien, tmp_path):
    line = {"messages": [{"role": "user", "content": "die"}], "expected": "Paris"}
    (tmp_path / "set.jsonl").write_text(json.dumps(line))
    result = evaluate(local, tmp_path / "set.jsonl", fetched, str(alien), text="params/evalsets/tiny-qa.jsonl")
    assert result.code == 1
    assert "model could not be evaluated: its process ended with signal 9" in result.err
    assert local.runs("attributes.status = 'RUNNING'") == []
    assert [a.path for a in local.client.list_artifacts(local.latest("evaluate").info.run_id)] == ["logs"]
