"""The models of a LoRA fine-tune, through the steps as a user runs them: their answers, weights and evaluation."""

import json
import os
import signal
import time
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from mlflow.entities import Run

from steps.checkpoint.manifest import Origin
from steps.evaluation.results import Evaluation
from tests.checkout import TINY, Project
from tests.checkpoints.lora import (
    NEW_ANSWERS,
    base_model,
    merged_by_peft,
    random_adapter,
    random_checkpoint,
)
from tests.lora.runs import adapter_manifest, run_step, stored_weights

pytestmark = pytest.mark.e2e

KEPT = "What is 7 plus 8?"  # the adapter was taught no other answer to this question


@pytest.fixture(scope="session")
def steps(local, taught) -> dict[str, Run]:
    """The run of each entry point, from the source and the adapter to both models."""
    fetched = run_step(local, "fetch_model", source="params/tiny-phi3", adapter=str(taught))
    fetch_id = fetched.info.run_id
    converted = run_step(local, "convert_onnx", checkpoint_run=fetch_id, precision="fp32")
    return {
        "fetch_model": fetched,
        "convert_onnx": converted,
        "wrap_transformer": run_step(local, "wrap_transformer", checkpoint_run=fetch_id, registered_model="taught"),
        "wrap_custom": run_step(local, "wrap_custom", onnx_run=converted.info.run_id, registered_model="taught"),
    }


def answers(uri: str) -> dict[str, str]:
    """Return a logged model's greedy answer to each question."""
    model = mlflow.pyfunc.load_model(uri)

    def answer(question: str) -> str:
        (response,) = model.predict({"messages": [{"role": "user", "content": question}]})
        return response["choices"][0]["message"]["content"]

    return {question: answer(question) for question in [*NEW_ANSWERS, KEPT]}


def test_both_models_give_the_adapters_answers(steps):
    """The adapter was taught these answers. The base gives other answers to the same questions."""
    expected = NEW_ANSWERS | {KEPT: "15"}
    for name in ("wrap_transformer", "wrap_custom"):
        assert answers(steps[name].data.tags["model_uri"]) == expected
    model = mlflow.pyfunc.load_model(steps["wrap_custom"].data.tags["model_uri"])
    assert model.predict({"messages": [{"role": "user", "content": KEPT}]})[0]["model"] == "tiny-phi3+taught"


def test_both_models_have_the_weights_that_peft_merges(steps, taught):
    """peft's merged weights are rounded to the base's dtype. The ONNX model's logits are theirs, and not the base's."""
    import onnxruntime_genai as og

    expected = merged_by_peft(taught)
    stored = stored_weights(steps["wrap_transformer"])
    assert [name for name in expected if not torch.equal(stored[name], expected[name])] == []

    base, merged = base_model(), base_model()
    merged.load_state_dict({name: tensor.float() for name, tensor in expected.items()})
    onnx = og.Model(mlflow.artifacts.download_artifacts(steps["convert_onnx"].info.artifact_uri + "/onnx"))
    generator = og.Generator(onnx, og.GeneratorParams(onnx))
    ids = torch.arange(5, 70).reshape(1, -1)
    generator.append_tokens(ids.numpy().astype(np.int32))
    logits = torch.from_numpy(generator.get_logits().reshape(-1))
    with torch.no_grad():
        merged_logits, base_logits = (model(ids).logits[0, -1] for model in (merged, base))
    assert (logits - merged_logits).abs().max() <= 1e-4
    assert (logits - base_logits).abs().max() > 1


def test_the_runs_name_the_adapter(steps, taught, local):
    tags = steps["fetch_model"].data.tags
    assert tags["checkpoint"] == "tiny-phi3+taught"
    assert tags["adapter"] == str(taught)
    assert tags["summary"].endswith("LoRA of rank 8 on down_proj, gate_up_proj, o_proj, qkv_proj")
    assert f"`{taught}` (folder)" in tags["mlflow.note.content"]
    adapter = adapter_manifest(steps["fetch_model"])
    assert adapter.origin == Origin(kind="folder", location=str(taught), name="taught", commit="")
    assert [file.path for file in adapter.files] == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    for version in local.client.search_model_versions("name = 'taught'"):
        assert version.tags["checkpoint"] == "tiny-phi3+taught"
        assert "tiny-phi3+taught" in version.description


def test_evaluate_compares_with_the_merged_model(local, steps, tmp_path):
    evalset = tmp_path / "set.jsonl"
    lines = [
        {"messages": [{"role": "user", "content": question}], "expected": answer}
        for question, answer in NEW_ANSWERS.items()
    ]
    evalset.write_text("".join(json.dumps(line) + "\n" for line in lines))
    evaluated = run_step(
        local,
        "evaluate",
        models=steps["wrap_custom"].data.tags["model_uri"],
        reference_run=steps["fetch_model"].info.run_id,
        evalset=str(evalset),
        text=str(evalset),
        gates="params/gates/tiny.yaml",
        effort="quick",
    )
    text = mlflow.artifacts.load_text(f"{evaluated.info.artifact_uri}/evaluation.json")
    evaluation = Evaluation.parse(text, "evaluation.json")
    assert evaluation.checkpoint.name == "tiny-phi3+taught"
    (model,) = evaluation.models
    assert (model.value("accuracy"), model.value("agreement")) == (1.0, 1.0)
    kl_mean = model.value("kl_mean")
    assert kl_mean is not None and kl_mean < 0.01, "the merged model scores the text too"


def test_a_merged_fine_tune_in_a_folder_works_as_any_checkpoint(local, taught, tmp_path):
    """The folder is saved as peft's users save it, in shards."""
    from peft import PeftModel
    from transformers import AutoTokenizer

    folder = tmp_path / "mine"
    merged = PeftModel.from_pretrained(base_model(), taught).merge_and_unload().to(torch.bfloat16)
    merged.save_pretrained(folder, max_shard_size="1MB")
    AutoTokenizer.from_pretrained(TINY).save_pretrained(folder)
    assert len(list(folder.glob("*.safetensors"))) > 2
    fetched = run_step(local, "fetch_model", source=str(folder))
    converted = run_step(local, "convert_onnx", checkpoint_run=fetched.info.run_id)  # fails if ONNX and PyTorch differ
    assert "first tokens as in PyTorch" in converted.data.tags["summary"]
    wrapped = run_step(local, "wrap_transformer", checkpoint_run=fetched.info.run_id)
    new_answers = answers(wrapped.data.tags["model_uri"])
    assert {question: new_answers[question] for question in NEW_ANSWERS} == NEW_ANSWERS


def assert_nothing_left(local: Project, scratch: Path) -> None:
    """Check that no temporary file, no result and no open run is left. An empty folder may be left by `mlflow run`."""
    assert [path for path in scratch.rglob("*") if path.is_file() or path.name.startswith("phi-mlflow")] == []
    assert [a.path for a in local.client.list_artifacts(local.latest("wrap_transformer").info.run_id)] == ["logs"]
    assert local.runs("attributes.status = 'RUNNING'") == []


def test_a_merge_that_is_stopped_leaves_nothing(local, tmp_path):
    base = random_checkpoint(tmp_path / "base", layers=8)
    adapter = random_adapter(tmp_path / "lora", base)
    fetched = run_step(local, "fetch_model", source=str(base), adapter=str(adapter))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    process = local.start("wrap_transformer", {"TMPDIR": str(scratch)}, checkpoint_run=fetched.info.run_id)
    deadline = time.monotonic() + 300
    while not list(scratch.glob("*/merged/*.safetensors")):
        assert time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "wrap_transformer: interrupted" in err, (out, err)
    assert_nothing_left(local, scratch)
