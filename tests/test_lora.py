"""A fine-tune through the steps, as a user runs them: a LoRA adapter from each kind of place, and a merged folder."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.checkpoints.lora import (
    NEW_ANSWERS,
    base_model,
    merged_by_peft,
    random_adapter,
    random_checkpoint,
    taught_adapter,
)
from tests.conftest import ROOT, TINY, Project
from tests.fakes.hub import Repo
from tests.faults.test_failures import assert_refused

KEPT = "What is 7 plus 8?"  # the adapter was not taught another answer to this one


@pytest.fixture(scope="session")
def taught(tmp_path_factory) -> Path:
    """An adapter that changes answers, in a local folder."""
    return taught_adapter(tmp_path_factory.mktemp("adapter") / "taught")


def run(local: Project, entry_point: str, env: dict[str, str] | None = None, **params: str):
    """A step that must finish; its run."""
    result = local.run_module(entry_point, env, **params)
    assert result.code == 0, result.err
    return local.latest(entry_point)


@pytest.fixture(scope="session")
def steps(local, taught) -> dict:
    """Entry point -> its run, from the source and the adapter to both models."""
    fetched = run(local, "fetch_model", source="params/tiny-phi3", adapter=str(taught))
    fetch_id = fetched.info.run_id
    converted = run(local, "convert_onnx", checkpoint_run=fetch_id, precision="fp32")
    return {
        "fetch_model": fetched,
        "convert_onnx": converted,
        "wrap_transformer": run(local, "wrap_transformer", checkpoint_run=fetch_id, registered_model="taught"),
        "wrap_custom": run(local, "wrap_custom", onnx_run=converted.info.run_id, registered_model="taught"),
    }


@pytest.fixture(scope="module", autouse=True)
def store(local):
    """This process talks to the same store."""
    mlflow.set_tracking_uri(local.uri)
    yield
    mlflow.set_tracking_uri(None)


def answers(uri: str) -> dict[str, str]:
    """Question -> a logged model's greedy answer."""
    model = mlflow.pyfunc.load_model(uri)
    asked = [*NEW_ANSWERS, KEPT]
    given = [model.predict({"messages": [{"role": "user", "content": question}]})[0] for question in asked]
    return {question: answer["choices"][0]["message"]["content"] for question, answer in zip(asked, given, strict=True)}


def test_both_models_give_the_adapters_answers(steps):
    """They are the ones that it was taught; the base has others to the same questions."""
    expected = NEW_ANSWERS | {KEPT: "15"}
    for name in ("wrap_transformer", "wrap_custom"):
        assert answers(steps[name].data.tags["model_uri"]) == expected
    model = mlflow.pyfunc.load_model(steps["wrap_custom"].data.tags["model_uri"])
    assert model.predict({"messages": [{"role": "user", "content": KEPT}]})[0]["model"] == "tiny-phi3+taught"


def test_the_two_say_the_same_logit_by_logit(steps, taught):
    """Against peft's own merging, rounded to the base's dtype: what either model says is that, and not the base."""
    import onnxruntime_genai as og

    logged = Path(mlflow.artifacts.download_artifacts(steps["wrap_transformer"].data.tags["model_uri"]))
    expected = merged_by_peft(taught)
    (weights,) = logged.rglob("*.safetensors")
    stored = load_file(weights)
    assert [name for name in expected if not torch.equal(stored[name], expected[name])] == []

    base, merged = base_model(), base_model()
    merged.load_state_dict({name: tensor.float() for name, tensor in expected.items()})
    onnx = og.Model(mlflow.artifacts.download_artifacts(steps["convert_onnx"].info.artifact_uri + "/onnx"))
    generator = og.Generator(onnx, og.GeneratorParams(onnx))
    ids = torch.arange(5, 70).reshape(1, -1)
    generator.append_tokens(ids.numpy().astype(np.int32))
    found = torch.from_numpy(generator.get_logits().reshape(-1))
    with torch.no_grad():
        wanted, other = (model(ids).logits[0, -1] for model in (merged, base))
    assert (found - wanted).abs().max() <= 1e-4
    assert (found - other).abs().max() > 1


def test_the_runs_say_which_adapter(steps, taught, local):
    tags = steps["fetch_model"].data.tags
    assert tags["checkpoint"] == "tiny-phi3+taught"
    assert tags["adapter"] == str(taught)
    assert tags["summary"].endswith("LoRA of rank 8 on down_proj, gate_up_proj, o_proj, qkv_proj")
    assert f"`{taught}` (folder)" in tags["mlflow.note.content"]
    manifest = mlflow.artifacts.load_dict(steps["fetch_model"].info.artifact_uri + "/checkpoint/manifest.json")
    assert manifest["adapter"]["origin"] == {
        "kind": "folder",
        "location": str(taught),
        "name": "taught",
        "commit": "",
    }
    names = [entry["path"] for entry in manifest["adapter"]["files"]]
    assert names == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
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
    evaluated = run(
        local,
        "evaluate",
        models=steps["wrap_custom"].data.tags["model_uri"],
        reference_run=steps["fetch_model"].info.run_id,
        evalset=str(evalset),
        text=str(evalset),
        gates="params/gates/tiny.yaml",
        effort="quick",
    )
    evaluation = mlflow.artifacts.load_dict(evaluated.info.artifact_uri + "/evaluation.json")
    assert evaluation["checkpoint"]["name"] == "tiny-phi3+taught"
    (entry,) = evaluation["models"]
    assert (entry["metrics"]["accuracy"], entry["metrics"]["agreement"]) == (1.0, 1.0)
    assert entry["metrics"]["kl_mean"] < 0.01, "the text is read by the merged model too"


def test_a_merged_fine_tune_in_a_folder_works_as_any_checkpoint(local, taught, tmp_path):
    """Saved as peft's users save it, in shards."""
    from peft import PeftModel
    from transformers import AutoTokenizer

    mine = tmp_path / "mine"
    merged = PeftModel.from_pretrained(base_model(), taught).merge_and_unload().to(torch.bfloat16)
    merged.save_pretrained(mine, max_shard_size="1MB")
    AutoTokenizer.from_pretrained(TINY).save_pretrained(mine)
    assert len(list(mine.glob("*.safetensors"))) > 2
    fetched = run(local, "fetch_model", source=str(mine))
    converted = run(local, "convert_onnx", checkpoint_run=fetched.info.run_id)  # compares the two, or fails
    assert "first tokens as in PyTorch" in converted.data.tags["summary"]
    wrapped = run(local, "wrap_transformer", checkpoint_run=fetched.info.run_id)
    given = answers(wrapped.data.tags["model_uri"])
    assert {question: given[question] for question in NEW_ANSWERS} == NEW_ANSWERS


def test_an_adapter_on_a_hub_is_pinned_and_only_its_own_files_are_fetched(local, hub, taught):
    files = {path.name: path.read_bytes() for path in taught.iterdir()}
    unwanted = {"adapter_model.bin": b"pickle", "optimizer.pt": b"pickle", "train.py": b"evil()"}
    hub.repos["me/lora"] = Repo(files | unwanted, {"main": "a" * 40, "v1": "b" * 40})
    env = {"HF_ENDPOINT": hub.url}
    fetched = run(local, "fetch_model", env, source="params/tiny-phi3", adapter="me/lora@v1")
    assert fetched.data.tags["adapter"] == f"me/lora@{'b' * 40}"
    manifest = mlflow.artifacts.load_dict(fetched.info.artifact_uri + "/checkpoint/manifest.json")
    assert manifest["adapter"]["origin"] == {
        "kind": "hub",
        "location": "me/lora",
        "name": "me/lora",
        "commit": "b" * 40,
    }
    assert not [path for _, path, _ in hub.requests if path.rpartition("/")[2] in unwanted]

    # The next step reads it from the cache, or fetches it again where that is gone.
    shutil.rmtree(local.home / "hf" / "hub" / "models--me--lora")
    wrapped = run(local, "wrap_transformer", env, checkpoint_run=fetched.info.run_id)
    assert wrapped.data.tags["checkpoint"] == "tiny-phi3+lora"
    folder = Path(mlflow.artifacts.download_artifacts(wrapped.data.tags["model_uri"]))
    (weights,) = folder.rglob("*.safetensors")
    assert torch.equal(load_file(weights)["lm_head.weight"], merged_by_peft(taught)["lm_head.weight"])
    name = "model.layers.0.self_attn.qkv_proj.weight"
    assert torch.equal(load_file(weights)[name], merged_by_peft(taught)[name])


def test_a_hubs_branch_is_pinned_before_main_looks_for_a_finished_run(hub, taught, tmp_path):
    hub.repos["me/lora"] = Repo({path.name: path.read_bytes() for path in taught.iterdir()}, {"main": "c" * 40})
    script = (
        "import sys, json; from steps.fetch_model import resolve; print(json.dumps(resolve(json.loads(sys.argv[1]))))"
    )

    def resolve(params: dict) -> dict:
        done = subprocess.run(
            [sys.executable, "-c", script, json.dumps(params)],
            env=os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path)},
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    resolved = resolve({"source": "params/tiny-phi3", "revision": "main", "adapter": "me/lora"})
    assert resolved == {"source": "params/tiny-phi3", "revision": "", "adapter": f"me/lora@{'c' * 40}"}
    hub.requests.clear()
    assert resolve(resolved) == resolved
    assert hub.requests == []


def test_an_adapter_in_the_artifact_store(local, taught):
    holder = local.client.create_run("0")
    local.client.log_artifacts(holder.info.run_id, str(taught), "lora")
    uri = f"runs:/{holder.info.run_id}/lora"
    fetched = run(local, "fetch_model", source="params/tiny-phi3", adapter=uri)
    assert fetched.data.tags["adapter"] == uri
    assert fetched.data.tags["checkpoint"] == "tiny-phi3+lora"
    local.client.set_terminated(holder.info.run_id)


def test_an_adapter_that_changed_after_it_was_fetched(local, taught, tmp_path):
    folder = shutil.copytree(taught, tmp_path / "lora")
    fetched = run(local, "fetch_model", source="params/tiny-phi3", adapter=str(folder))
    weights = folder / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    result = local.run_module("convert_onnx", checkpoint_run=fetched.info.run_id)
    assert_refused(local, result, "adapter_model.safetensors in", "SHA-256", "run fetch_model again")


def test_an_adapter_for_another_base(local, taught, tmp_path):
    base = random_checkpoint(tmp_path / "base", layers=1)
    result = local.run_module("fetch_model", source=str(base), adapter=str(taught))
    assert_refused(local, result, "model.layers.0", "it was made for another base (", "tiny-phi3")


def assert_nothing_left(local: Project, scratch: Path) -> None:
    """No temporary file, nothing logged but the log, and no open run; an empty folder there is `mlflow run`'s own."""
    assert [path for path in scratch.rglob("*") if path.is_file() or path.name.startswith("phi-mlflow")] == []
    assert [a.path for a in local.client.list_artifacts(local.latest("wrap_transformer").info.run_id)] == ["logs"]
    assert local.runs("attributes.status = 'RUNNING'") == []


def test_a_merge_that_is_stopped_leaves_nothing(local, tmp_path):
    base = random_checkpoint(tmp_path / "base", layers=8)
    adapter = random_adapter(tmp_path / "lora", base)
    fetched = run(local, "fetch_model", source=str(base), adapter=str(adapter))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    process = local.start("wrap_transformer", {"TMPDIR": str(scratch)}, checkpoint_run=fetched.info.run_id)
    deadline = time.monotonic() + 60
    while not list(scratch.glob("*/merged/*.safetensors")):
        assert time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "wrap_transformer: interrupted" in err, (out, err)
    assert_nothing_left(local, scratch)
