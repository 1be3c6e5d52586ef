"""Fingerprints: what changes them, and what does not."""

import shutil

import pytest

from steps.runs import reuse
from steps.runs.console import redact
from tests.conftest import TINY, checkout


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A checkout that the fingerprints are taken of."""
    root = checkout(tmp_path / "project")
    monkeypatch.setattr(reuse, "ROOT", root)
    return root


@pytest.fixture
def client(tmp_path, monkeypatch):
    """A client of an empty store."""
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)  # where such a store puts artifacts
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    return MlflowClient(uri, uri)


PARAMS = {"source": "params/tiny-phi3", "revision": "", "adapter": ""}


def test_an_evaluation_set_counts_by_its_content_alone(copy, client, tmp_path):
    shipped = "params/evalsets/tiny-qa.jsonl"
    shutil.copy(copy / shipped, tmp_path / "same.jsonl")
    prints = [reuse.fingerprint(client, "evaluate", {"evalset": s}) for s in (shipped, str(tmp_path / "same.jsonl"))]
    assert prints[0] == prints[1]


def test_another_checkout_of_the_same_files_has_the_same(copy, client, tmp_path, monkeypatch):
    first = reuse.fingerprint(client, "fetch_model", PARAMS)
    monkeypatch.setattr(reuse, "ROOT", checkout(tmp_path / "other"))
    assert reuse.fingerprint(client, "fetch_model", PARAMS) == first


def test_a_source_folder_counts_by_its_address_and_its_content(copy, client, tmp_path):
    """By its address too, because the steps that follow read the weights there."""
    moved = shutil.copytree(TINY, tmp_path / "moved")
    first = reuse.fingerprint(client, "fetch_model", PARAMS | {"source": str(moved)})
    assert first != reuse.fingerprint(client, "fetch_model", PARAMS)
    assert first == reuse.fingerprint(client, "fetch_model", PARAMS | {"source": str(moved)})
    (moved / "config.json").write_text((moved / "config.json").read_text() + " ")
    assert reuse.fingerprint(client, "fetch_model", PARAMS | {"source": str(moved)}) != first


def test_an_adapter_folder_counts_as_a_source_does(copy, client, tmp_path):
    prints = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_model.safetensors").write_bytes(b"the same")
        prints.append(reuse.fingerprint(client, "fetch_model", PARAMS | {"adapter": str(tmp_path / name)}))
    (tmp_path / "one" / "adapter_model.safetensors").write_bytes(b"another")
    prints.append(reuse.fingerprint(client, "fetch_model", PARAMS | {"adapter": str(tmp_path / "one")}))
    assert len({reuse.fingerprint(client, "fetch_model", PARAMS), *prints}) == 4


@pytest.mark.parametrize(
    ("adapter", "again"),
    [("me/lora@" + "a" * 40, True), ("models:/lora/3", True), ("runs:/x/lora", True), ("s3://bucket/lora", False)],
)
def test_an_adapter_that_is_pinned_is_not_read_again(copy, client, adapter, again):
    prints = [reuse.fingerprint(client, "fetch_model", PARAMS | {"adapter": adapter}) for _ in range(2)]
    assert (prints[0] == prints[1]) == again


@pytest.mark.parametrize(
    "changed", ["conda.yaml", "steps/fetch_model.py", "steps/checkpoint/hub.py", "steps/common/disk.py"]
)
def test_code_and_environment_that_a_step_runs_change_it(copy, client, changed):
    first = reuse.fingerprint(client, "fetch_model", PARAMS)
    with (copy / changed).open("a") as file:
        file.write("# edited\n")
    assert reuse.fingerprint(client, "fetch_model", PARAMS) != first


@pytest.mark.parametrize(
    "changed", ["README.md", "steps/chat/batching/engine.py", "steps/evaluate.py", "params/tiny.yaml"]
)
def test_what_a_step_does_not_run_does_not_change_it(copy, client, changed):
    first = reuse.fingerprint(client, "fetch_model", PARAMS)
    with (copy / changed).open("a") as file:
        file.write("# edited\n")
    assert reuse.fingerprint(client, "fetch_model", PARAMS) == first


def test_the_code_that_travels_in_the_custom_model_counts_for_its_wrapper(copy):
    first = reuse.code_digest("wrap_custom")
    with (copy / "steps/chat/batching/engine.py").open("a") as file:
        file.write("# edited\n")
    assert reuse.code_digest("wrap_custom") != first


def test_the_reports_template_counts_for_the_evaluation(copy):
    first = reuse.code_digest("evaluate"), reuse.code_digest("wrap_custom")
    with (copy / "steps/evaluation/report/page.html.j2").open("a") as file:
        file.write("<!-- edited -->\n")
    assert reuse.code_digest("evaluate") != first[0]
    assert reuse.code_digest("wrap_custom") == first[1]


def test_an_upstream_run_counts_by_its_fingerprint(copy, client):
    runs = [client.create_run("0").info.run_id for _ in range(3)]
    for run, mark in zip(runs, ("same", "same", "other"), strict=True):
        client.set_tag(run, reuse.FINGERPRINT_TAG, mark)
    prints = [reuse.fingerprint(client, "wrap_custom", {"onnx_run": run, "task": "t"}) for run in runs]
    assert prints[0] == prints[1] != prints[2]


def test_an_unfinished_run_is_not_reused(copy, client):
    run = client.create_run("0", tags={"mlflow.project.entryPoint": "fetch_model", reuse.FINGERPRINT_TAG: "mark"})
    client.log_text(run.info.run_id, "{}", "checkpoint/manifest.json")
    assert reuse.find_finished(client, "0", "fetch_model", "mark") is None
    client.set_terminated(run.info.run_id, "FAILED")
    assert reuse.find_finished(client, "0", "fetch_model", "mark") is None


def test_a_finished_run_is_reused_while_its_artifacts_are_there(copy, client):
    run = client.create_run("0", tags={"mlflow.project.entryPoint": "fetch_model", reuse.FINGERPRINT_TAG: "mark"})
    client.log_text(run.info.run_id, "{}", "checkpoint/manifest.json")
    client.set_terminated(run.info.run_id)
    assert reuse.find_finished(client, "0", "fetch_model", "mark").info.run_id == run.info.run_id
    assert reuse.find_finished(client, "0", "convert_onnx", "mark") is None
    shutil.rmtree(run.info.artifact_uri.removeprefix("file://"))
    assert reuse.find_finished(client, "0", "fetch_model", "mark") is None


def test_secrets_are_cut_out_of_what_is_logged(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_planted")
    monkeypatch.setenv("HF_ENDPOINT", "https://user:pass@mirror")
    assert redact("hf_planted at https://user:pass@mirror/x") == "<HF_TOKEN> at <HF_ENDPOINT>/x"
