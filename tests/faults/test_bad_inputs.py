"""A step refuses, in one line, a run, a model or a file that it cannot use: of another step, damaged, changed."""

import re
import shutil

import mlflow
import pytest

from steps.checkpoint.manifest import Manifest
from tests.checkout import TINY, Project, assert_refused
from tests.fakes.hub import TOKEN, Repo

pytestmark = pytest.mark.e2e


def test_the_run_of_another_step(local, fetched):
    result = local.run_module("wrap_custom", onnx_run=fetched)
    assert_refused(local, result, f"onnx_run is '{fetched}', a fetch_model run; expected a convert_onnx run")


def test_a_run_that_failed(local, fetched):
    local.run_module("fetch_model", source="no-such-folder")
    failed = local.latest("fetch_model").info.run_id
    assert_refused(local, local.run_module("convert_onnx", checkpoint_run=failed), "which is FAILED; expected FINISHED")


def test_a_registered_model_that_does_not_exist(local, fetched):
    result = local.run_module("evaluate", models="models:/nothing@champion", reference_run=fetched)
    assert_refused(local, result, "'models:/nothing@champion' is not an MLflow model")


@pytest.fixture
def manifest(local, fetched) -> Manifest:
    """The manifest of the fetch_model run."""
    uri = local.client.get_run(fetched).info.artifact_uri
    return Manifest.parse(mlflow.artifacts.load_text(f"{uri}/checkpoint/manifest.json"), "manifest.json")


def run_with_manifest(local: Project, text: str) -> str:
    """Make a finished fetch_model run with a manifest.json. Return its ID."""
    run = local.client.create_run("0", tags={"mlflow.project.entryPoint": "fetch_model"})
    local.client.log_text(run.info.run_id, text, "checkpoint/manifest.json")
    local.client.set_terminated(run.info.run_id)
    return run.info.run_id


def test_a_manifest_that_is_cut_short(local, manifest):
    run = run_with_manifest(local, manifest.to_json()[:100])
    result = local.run_module("convert_onnx", checkpoint_run=run)
    assert_refused(local, result, "manifest.json of run", "is not JSON")


def test_a_manifest_with_another_hash(local, manifest):
    wrong = {"sha256": "0" * 64}
    files = [file.model_copy(update=wrong if file.path == "tokenizer.json" else {}) for file in manifest.files]
    run = run_with_manifest(local, manifest.model_copy(update={"files": files}).to_json())
    result = local.run_module("wrap_transformer", checkpoint_run=run, registered_model="never-made")
    assert_refused(local, result, "tokenizer.json in", "SHA-256")
    assert local.client.search_registered_models("name = 'never-made'") == []


def test_a_conversion_larger_than_the_disk(local, manifest):
    huge = manifest.architecture.model_copy(update={"parameters": 10**18})
    run = run_with_manifest(local, manifest.model_copy(update={"architecture": huge}).to_json())
    result = local.run_module("convert_onnx", checkpoint_run=run)
    assert_refused(local, result, "converting tiny-phi3 to int4 needs", "TB", "free")


def test_a_checkpoint_that_changed_after_it_was_fetched(local, tmp_path):
    folder = shutil.copytree(TINY, tmp_path / "mine")
    assert local.run_module("fetch_model", source=str(folder)).code == 0
    (folder / "generation_config.json").write_text("{}")
    result = local.run_module("convert_onnx", checkpoint_run=local.latest("fetch_model").info.run_id)
    assert_refused(local, result, "generation_config.json in", "run fetch_model again")
    run_id = local.latest("convert_onnx").info.run_id
    assert [artifact.path for artifact in local.client.list_artifacts(run_id)] == ["logs"]


def test_an_evaluation_set_that_does_not_exist_is_refused_before_any_step(local):
    profile = (local.root / "params" / "tiny.yaml").read_text()
    (local.root / "params" / "no-set.yaml").write_text(profile.replace("tiny-qa", "no-such-set"))
    assert_refused(local, local.run_module("main", profile="no-set"), "no-such-set.jsonl cannot be read")


def test_a_tokenizer_that_cannot_be_read_fails_main_with_the_cause_of_the_step(local):
    folder = shutil.copytree(TINY, local.root / "params" / "broken")
    profile = (local.root / "params" / "tiny.yaml").read_text()
    (local.root / "params" / "broken.yaml").write_text(profile.replace("params/tiny-phi3", "params/broken"))
    (folder / "tokenizer.json").write_text("{}")
    result = local.run_module("main", profile="broken", steps="fetch_model,convert_onnx")
    assert_refused(local, result, "main: fetch_model failed (run ")
    (run_id,) = re.findall(r"fetch_model failed \(run ([0-9a-f]{32})", result.err)
    run = local.client.get_run(run_id)
    assert run.info.status == "FAILED"
    assert run.data.tags["error"]
    logs = {artifact.path for artifact in local.client.list_artifacts(run_id, "logs")}
    assert logs == {"logs/traceback.txt", "logs/output.log"}


def test_a_step_that_is_left_out_and_was_never_run(local):
    profile = (local.root / "params" / "tiny.yaml").read_text()
    (local.root / "params" / "other.yaml").write_text(profile.replace("int4", "int8"))
    result = local.run_module("main", profile="other", steps="fetch_model,evaluate")
    assert_refused(local, result, "steps leaves out convert_onnx")


def test_a_token_is_in_no_run(local, hub):
    files = {path.name: path.read_bytes() for path in TINY.iterdir()}
    hub.repos["somebody/gated"] = Repo(files, {"main": "c" * 40}, gated=True)
    env = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "wrong-planted-secret"}
    assert_refused(local, local.run_module("fetch_model", env, source="somebody/gated"), "is gated")
    env["HF_TOKEN"] = TOKEN
    assert local.run_module("fetch_model", env, source="somebody/gated").code == 0
    run = local.latest("fetch_model")
    assert run.data.tags["checkpoint_commit"] == "c" * 40
    for secret in ("wrong-planted-secret", TOKEN, hub.url):
        for file in [path for path in local.home.rglob("*") if path.is_file() and "hf" not in path.parts]:
            assert secret.encode() not in file.read_bytes(), (secret, file)


def test_a_file_cut_short_in_the_hubs_cache_is_fetched_again(local, hub):
    files = {path.name: path.read_bytes() for path in TINY.iterdir()}
    hub.repos["somebody/open"] = Repo(files, {"main": "d" * 40})
    env = {"HF_ENDPOINT": hub.url}
    assert local.run_module("fetch_model", env, source="somebody/open").code == 0
    (weights,) = (local.home / "hf").glob("**/models--somebody--open/snapshots/*/model.safetensors")
    blob = weights.resolve()
    blob.write_bytes(blob.read_bytes()[:1000])
    result = local.run_module("wrap_transformer", env, checkpoint_run=local.latest("fetch_model").info.run_id)
    assert result.code == 0, result.err
    assert weights.read_bytes() == (TINY / "model.safetensors").read_bytes()
