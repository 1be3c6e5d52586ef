"""Where a LoRA adapter comes from: a hub, the artifact store or a folder; and the adapters that a step refuses."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch

from steps.checkpoint.manifest import Origin
from tests.checkout import ROOT, assert_refused
from tests.checkpoints.lora import merged_by_peft, random_checkpoint
from tests.fakes.hub import Repo
from tests.lora.runs import adapter_manifest, run_step, stored_weights

pytestmark = pytest.mark.e2e


def test_an_adapter_on_a_hub_is_pinned_and_only_its_own_files_are_fetched(local, hub, taught):
    files = {path.name: path.read_bytes() for path in taught.iterdir()}
    unwanted = {"adapter_model.bin": b"pickle", "optimizer.pt": b"pickle", "train.py": b"evil()"}
    hub.repos["me/lora"] = Repo(files | unwanted, {"main": "a" * 40, "v1": "b" * 40})
    env = {"HF_ENDPOINT": hub.url}
    fetched = run_step(local, "fetch_model", env, source="params/tiny-phi3", adapter="me/lora@v1")
    assert fetched.data.tags["adapter"] == f"me/lora@{'b' * 40}"
    origin = Origin(kind="hub", location="me/lora", name="me/lora", commit="b" * 40)
    assert adapter_manifest(fetched).origin == origin
    assert not [path for _, path, _ in hub.requests if path.rpartition("/")[2] in unwanted]

    # The next step reads the adapter from the cache. If the cache is gone, the step fetches the adapter again.
    shutil.rmtree(local.home / "hf" / "hub" / "models--me--lora")
    wrapped = run_step(local, "wrap_transformer", env, checkpoint_run=fetched.info.run_id)
    assert wrapped.data.tags["checkpoint"] == "tiny-phi3+lora"
    stored, expected = stored_weights(wrapped), merged_by_peft(taught)
    for name in ("lm_head.weight", "model.layers.0.self_attn.qkv_proj.weight"):
        assert torch.equal(stored[name], expected[name])


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
    fetched = run_step(local, "fetch_model", source="params/tiny-phi3", adapter=uri)
    assert fetched.data.tags["adapter"] == uri
    assert fetched.data.tags["checkpoint"] == "tiny-phi3+lora"
    local.client.set_terminated(holder.info.run_id)


def test_an_adapter_that_changed_after_it_was_fetched(local, taught, tmp_path):
    folder = shutil.copytree(taught, tmp_path / "lora")
    fetched = run_step(local, "fetch_model", source="params/tiny-phi3", adapter=str(folder))
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
