"""Fingerprints: what changes them, and what does not."""

import shutil
from fnmatch import fnmatch
from pathlib import Path

import pytest

from steps.project.plan import STEPS
from steps.runs import reuse
from steps.runs.console import redact
from tests.checkout import ROOT, TINY

pytestmark = pytest.mark.unit


def copy_project(target: Path) -> Path:
    """Copy what fingerprints depend on: the code, the parameters, conda.yaml and MLproject."""
    for folder in ("steps", "params"):
        shutil.copytree(ROOT / folder, target / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("conda.yaml", "MLproject", "README.md"):
        shutil.copy(ROOT / file, target / file)
    return target


@pytest.fixture
def copy(tmp_path, monkeypatch) -> Path:
    """A copy of the project that the fingerprints are taken of."""
    root = copy_project(tmp_path / "project")
    monkeypatch.setattr(reuse, "ROOT", root)
    return root


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """A client of a store of its own."""
    from mlflow import MlflowClient

    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder}/mlflow.db"
    client = MlflowClient(uri, uri)
    client.create_experiment("reuse", artifact_location=folder.as_uri())
    return client


@pytest.fixture
def experiment(client) -> str:
    """The ID of the experiment whose artifacts are in a temporary folder."""
    return client.get_experiment_by_name("reuse").experiment_id


PARAMS = {"source": "params/tiny-phi3", "revision": "", "adapter": ""}


def test_an_evaluation_set_counts_by_its_content_alone(copy, client, tmp_path):
    shipped = "params/evalsets/tiny-qa.jsonl"
    shutil.copy(copy / shipped, tmp_path / "same.jsonl")
    prints = [reuse.fingerprint(client, "evaluate", {"evalset": s}) for s in (shipped, str(tmp_path / "same.jsonl"))]
    assert prints[0] == prints[1]


def test_another_checkout_of_the_same_files_has_the_same(copy, client, tmp_path, monkeypatch):
    first = reuse.fingerprint(client, "fetch_model", PARAMS)
    monkeypatch.setattr(reuse, "ROOT", copy_project(tmp_path / "other"))
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


def test_conda_yaml_counts_for_every_step(copy, client):
    first = reuse.fingerprint(client, "fetch_model", PARAMS)
    with (copy / "conda.yaml").open("a") as file:
        file.write("# edited\n")
    assert reuse.fingerprint(client, "fetch_model", PARAMS) != first


@pytest.mark.parametrize("changed", ["README.md", "params/tiny.yaml"])
def test_files_that_no_step_runs_do_not_count(copy, client, changed):
    first = reuse.fingerprint(client, "fetch_model", PARAMS)
    with (copy / changed).open("a") as file:
        file.write("# edited\n")
    assert reuse.fingerprint(client, "fetch_model", PARAMS) == first


NO_STEP: set[str] = set()
FETCH, CONVERT, TRANSFORMER, CUSTOM, EVALUATE = STEPS
WRAP = {TRANSFORMER, CUSTOM}
READ_A_CHECKPOINT = {FETCH, CONVERT, TRANSFORMER, EVALUATE}
# A pattern of files -> the steps that run again when such a file is edited. The first pattern that fits counts.
REPEATED_BY = {
    "steps/fetch_model.py": {FETCH},
    "steps/convert_onnx.py": {CONVERT},
    "steps/wrap_transformer.py": {TRANSFORMER},
    "steps/wrap_custom.py": {CUSTOM},
    "steps/evaluate.py": {EVALUATE},
    "steps/main.py": NO_STEP,
    "steps/test.py": NO_STEP,
    "steps/submit_databricks.py": NO_STEP,
    "steps/databricks/*": NO_STEP,
    "steps/serve.py": NO_STEP,
    "steps/serving/*": NO_STEP,
    "steps/monitor.py": NO_STEP,
    "steps/monitoring/*": NO_STEP,
    "steps/chat/__init__.py": set(STEPS),  # fetch_model and the steps after it read the chat template
    "steps/chat/runtime/__init__.py": set(STEPS),
    "steps/chat/runtime/chat_template.py": set(STEPS),
    "steps/chat/runtime/deadline.py": set(STEPS),
    "steps/chat/runtime/template_*.py": set(STEPS),
    "steps/chat/runtime/control_tokens.py": {CONVERT, *WRAP, EVALUATE},
    "steps/chat/runtime/plain_text.py": {CONVERT, *WRAP, EVALUATE},
    "steps/chat/runtime/stream_decoder.py": {CONVERT, *WRAP, EVALUATE},
    "steps/chat/runtime/cpus.py": {CONVERT, *WRAP, EVALUATE},
    "steps/chat/runtime/graph.py": {CONVERT, *WRAP, EVALUATE},
    "steps/chat/runtime/tokenizer.py": {CONVERT, *WRAP, EVALUATE},
    "steps/chat/runtime/torch_session.py": WRAP,
    "steps/chat/runtime/*": {*WRAP, EVALUATE},
    "steps/chat/*": WRAP,  # all of it travels in the models
    "*/README.md": NO_STEP,
    "steps/checkpoint/__init__.py": set(STEPS),
    "steps/checkpoint/source.py": set(STEPS),
    "steps/checkpoint/manifest.py": set(STEPS),
    "steps/checkpoint/longrope.py": {CONVERT, TRANSFORMER},
    "steps/checkpoint/run_page.py": {FETCH, TRANSFORMER},
    "steps/checkpoint/*": READ_A_CHECKPOINT,
    "steps/common/packages.py": {CONVERT, CUSTOM, EVALUATE},
    "steps/common/process.py": {CONVERT},
    "steps/conversion/record.py": {CONVERT, CUSTOM},
    "steps/conversion/__init__.py": {CONVERT, CUSTOM},
    "steps/conversion/*": {CONVERT},
    "steps/evaluation/lm_eval/*": NO_STEP,
    "steps/evaluation/recording/run_page.py": NO_STEP,
    "steps/evaluation/*": {EVALUATE},
    "steps/project/extras.py": NO_STEP,
    "steps/project/profiles.py": NO_STEP,
    "steps/registry/aliases.py": {EVALUATE},
    "steps/registry/*": {FETCH, TRANSFORMER, CUSTOM, EVALUATE},
    "steps/runs/child_runs.py": NO_STEP,
    "steps/runs/remote_run.py": NO_STEP,
    "steps/runs/checkpoint_input.py": READ_A_CHECKPOINT,
    "steps/wrapping/two_flavors.py": {TRANSFORMER},
    "steps/wrapping/*": WRAP,
    "steps/*": set(STEPS),
}


def test_editing_a_file_repeats_the_steps_that_run_it_and_no_others(copy):
    before = {step: reuse.code_digest(step) for step in STEPS}
    wrong = {}
    for path in sorted(path for path in (copy / "steps").rglob("*") if path.is_file()):
        content = path.read_bytes()
        path.write_bytes(content + b"\n# edited\n")
        repeated = {step for step in STEPS if reuse.code_digest(step) != before[step]}
        path.write_bytes(content)
        name = path.relative_to(copy).as_posix()
        expected = next(steps for pattern, steps in REPEATED_BY.items() if fnmatch(name, pattern))
        if repeated != expected:
            wrong[name] = repeated
    assert wrong == {}


def test_an_upstream_run_counts_by_its_fingerprint(copy, client, experiment):
    runs = [client.create_run(experiment).info.run_id for _ in range(3)]
    for run, mark in zip(runs, ("same", "same", "other"), strict=True):
        client.set_tag(run, reuse.FINGERPRINT_TAG, mark)
    prints = [reuse.fingerprint(client, "wrap_custom", {"onnx_run": run, "task": "t"}) for run in runs]
    assert prints[0] == prints[1] != prints[2]


def fetch_run(client, experiment: str, mark: str):
    """Create a RUNNING fetch_model run with a fingerprint and a manifest."""
    tags = {"mlflow.project.entryPoint": "fetch_model", reuse.FINGERPRINT_TAG: mark}
    run = client.create_run(experiment, tags=tags)
    client.log_text(run.info.run_id, "{}", "checkpoint/manifest.json")
    return run


def test_an_unfinished_run_is_not_reused(client, experiment):
    run = fetch_run(client, experiment, "unfinished")
    assert reuse.find_finished(client, experiment, "fetch_model", "unfinished") is None
    client.set_terminated(run.info.run_id, "FAILED")
    assert reuse.find_finished(client, experiment, "fetch_model", "unfinished") is None


def test_a_finished_run_is_reused_while_its_artifacts_exist(client, experiment):
    run = fetch_run(client, experiment, "finished")
    client.set_terminated(run.info.run_id)
    reused = reuse.find_finished(client, experiment, "fetch_model", "finished")
    assert reused is not None and reused.info.run_id == run.info.run_id
    assert reuse.find_finished(client, experiment, "convert_onnx", "finished") is None
    shutil.rmtree(run.info.artifact_uri.removeprefix("file://"))
    assert reuse.find_finished(client, experiment, "fetch_model", "finished") is None


def test_secrets_are_cut_out_of_what_is_logged(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_planted")
    monkeypatch.setenv("HF_ENDPOINT", "https://user:pass@mirror")
    assert redact("hf_planted at https://user:pass@mirror/x") == "<HF_TOKEN> at <HF_ENDPOINT>/x"
