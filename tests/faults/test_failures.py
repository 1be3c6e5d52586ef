"""Bad input and failure, through the command line: one clear line, a non-zero exit, no run left RUNNING."""

import importlib
import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import mlflow
import psutil
import pytest

from steps.common.errors import StepError
from steps.project.mlproject import parse_parameters
from tests.checkout import TINY, Project


def assert_refused(project: Project, result, *parts: str) -> None:
    """One line that holds the parts, an exit code, and every run closed."""
    lines = result.error_lines()
    assert result.code != 0
    assert len(lines) == 1, result.err
    for part in parts:
        assert part in lines[0]
    assert project.runs("attributes.status = 'RUNNING'") == []


NOWHERE = "0" * 32


EVALUATE = {"models": "models:/x/1", "reference_run": NOWHERE}


@pytest.mark.parametrize(
    ("entry_point", "params", "parts"),
    [
        ("main", {"profile": "tinny"}, ["main: profile is 'tinny'; did you mean 'tiny'"]),
        ("fetch_model", {"source": "no-such-folder"}, ["source is 'no-such-folder'; expected a hub repository"]),
        ("fetch_model", {"source": "runs:/" + NOWHERE + "/x"}, ["cannot be read"]),
        (
            "fetch_model",
            {"source": "params/tiny-phi3", "adapter": "no-such-folder"},
            ["adapter is 'no-such-folder'; expected"],
        ),
        ("convert_onnx", {"checkpoint_run": NOWHERE}, ["no such run in this tracking store"]),
        ("wrap_custom", {"onnx_run": NOWHERE, "registered_model": "me/phi"}, ["registered_model is 'me/phi'"]),
        ("evaluate", EVALUATE | {"evalset": "no.jsonl"}, ["evalset", "no.jsonl cannot be read"]),
    ],
)
def test_bad_values(local, entry_point, params, parts):
    assert_refused(local, local.run_module(entry_point, **params), *parts)


@pytest.mark.parametrize(
    ("entry_point", "params", "parts"),
    [
        ("main", {"steps": "fetch"}, ["steps is 'fetch'; did you mean 'fetch_model'"]),
        ("main", {"reuse": "maybe"}, ["reuse is 'maybe'"]),
        ("convert_onnx", {"checkpoint_run": "latest"}, ["checkpoint_run is 'latest'; expected the run ID"]),
        ("convert_onnx", {"checkpoint_run": NOWHERE, "precision": "fp16"}, ["precision is 'fp16'", "int4, int8, fp32"]),
        ("convert_onnx", {"checkpoint_run": NOWHERE, "options": "blok_size=32"}, ["did you mean 'block_size'"]),
        ("wrap_transformer", {"checkpoint_run": NOWHERE, "task": "llm/v1/chats"}, ["did you mean 'llm/v1/chat'"]),
        ("evaluate", EVALUATE | {"text": "no.txt"}, ["text", "no.txt cannot be read"]),
        ("evaluate", EVALUATE | {"gates": "no.yaml"}, ["gates", "no.yaml cannot be read"]),
        ("evaluate", EVALUATE | {"models": "models:/x/1,"}, ["models is 'models:/x/1,'; expected MLflow model URIs"]),
        ("evaluate", EVALUATE | {"effort": "quik"}, ["effort is 'quik'; did you mean 'quick'"]),
        ("evaluate", EVALUATE | {"prefer": "cost"}, ["prefer is 'cost'", "quality, size, speed"]),
        ("evaluate", EVALUATE | {"judge": "gpt-5"}, ["judge is 'gpt-5'; expected a model as MLflow's judges take it"]),
        ("submit_databricks", {"entry_point": "mian"}, ["entry_point is 'mian'; did you mean 'main'"]),
        ("submit_databricks", {"entry_point": "test"}, ["entry_point is 'test'; valid: convert_onnx"]),
        ("submit_databricks", {"params": "profile"}, ["params has 'profile'; expected name=value"]),
        ("submit_databricks", {"params": "profle=tiny"}, ["'profle' is unknown to main; did you mean 'profile'"]),
        ("submit_databricks", {"params": "profile=tinny"}, ["profile is 'tinny'; did you mean 'tiny'"]),
        ("submit_databricks", {"entry_point": "evaluate"}, ["evaluate needs a value for models, reference_run"]),
        ("submit_databricks", {"env_manager": "pip"}, ["env_manager is 'pip'; valid: conda, local, uv, virtualenv"]),
        ("submit_databricks", {"timeout": "-1"}, ["timeout is '-1'; expected seconds"]),
        ("submit_databricks", {"source": "github.com/x/y"}, ["expected workspace, or the URL of a git repository"]),
        ("submit_databricks", {"version": "v1"}, ["version is 'v1', which a git URL as the source would need"]),
        ("submit_databricks", {"uc_schema": "main"}, ["uc_schema is 'main'; expected catalog.schema"]),
        ("submit_databricks", {"cluster": "no.json"}, ["cluster is 'no.json', which cannot be read"]),
    ],
)
def test_more_bad_values_without_a_process_for_each(entry_point, params, parts):
    values = parse_parameters(entry_point, [f"--{name}={value}" for name, value in params.items()])
    with pytest.raises(StepError) as refusal:
        importlib.import_module(f"steps.{entry_point}").check(values)
    for part in parts:
        assert part in str(refusal.value)


def test_a_parameter_that_is_unknown(local):
    """MLflow hands it on without a word."""
    result = local.run("main", proflie="tiny")
    assert_refused(local, result, "main: parameter 'proflie' is unknown to main; did you mean 'profile'")


def test_another_steps_run(local, fetched):
    result = local.run_module("wrap_custom", onnx_run=fetched)
    assert_refused(local, result, f"onnx_run is '{fetched}', a fetch_model run; expected a convert_onnx run")


def test_an_unfinished_run(local, fetched):
    local.run_module("fetch_model", source="no-such-folder")
    failed = local.latest("fetch_model").info.run_id
    assert_refused(local, local.run_module("convert_onnx", checkpoint_run=failed), "which is FAILED; expected FINISHED")


def test_a_model_that_is_none(local, fetched):
    result = local.run_module("evaluate", models="models:/nothing@champion", reference_run=fetched)
    assert_refused(local, result, "'models:/nothing@champion' is not an MLflow model")


def edited_manifest(local: Project, fetched: str, edit) -> str:
    """A finished fetch_model run with a manifest that was changed."""
    manifest = mlflow.artifacts.load_dict(local.client.get_run(fetched).info.artifact_uri + "/checkpoint/manifest.json")
    run = local.client.create_run("0", tags={"mlflow.project.entryPoint": "fetch_model"})
    local.client.log_text(run.info.run_id, edit(manifest), "checkpoint/manifest.json")
    local.client.set_terminated(run.info.run_id)
    return run.info.run_id


def test_a_corrupted_manifest(local, fetched):
    run = edited_manifest(local, fetched, lambda manifest: json.dumps(manifest)[:100])
    assert_refused(
        local, local.run_module("convert_onnx", checkpoint_run=run), "manifest.json of run", "is not JSON"
    )


def test_a_manifest_that_says_another_hash(local, fetched):
    def edit(manifest: dict) -> str:
        entry = next(entry for entry in manifest["files"] if entry["path"] == "tokenizer.json")
        entry["sha256"] = "0" * 64
        return json.dumps(manifest)

    run = edited_manifest(local, fetched, edit)
    result = local.run_module("wrap_transformer", checkpoint_run=run, registered_model="never-made")
    assert_refused(local, result, "tokenizer.json in", "SHA-256")
    assert local.client.search_registered_models("name = 'never-made'") == []


def test_a_conversion_larger_than_the_disk(local, fetched):
    def edit(manifest: dict) -> str:
        manifest["architecture"]["parameters"] = 10**18
        return json.dumps(manifest)

    result = local.run_module("convert_onnx", checkpoint_run=edited_manifest(local, fetched, edit))
    assert_refused(local, result, "converting tiny-phi3 to int4 needs", "TB", "free")


def test_a_checkpoint_that_changed_after_it_was_fetched(local, tmp_path):
    folder = shutil.copytree(TINY, tmp_path / "mine")
    assert local.run_module("fetch_model", source=str(folder)).code == 0
    (folder / "generation_config.json").write_text("{}")
    result = local.run_module("convert_onnx", checkpoint_run=local.latest("fetch_model").info.run_id)
    assert_refused(local, result, "generation_config.json in", "run fetch_model again")
    assert [a.path for a in local.client.list_artifacts(local.latest("convert_onnx").info.run_id)] == ["logs"]


def test_a_step_that_fails_fails_main_with_its_cause(local, tmp_path):
    """A bad evaluation set is known before any step runs; a tokenizer that is none only when it is used."""
    folder = shutil.copytree(TINY, local.root / "params" / "broken")
    profile = (local.root / "params" / "tiny.yaml").read_text().replace("params/tiny-phi3", "params/broken")
    (local.root / "params" / "broken.yaml").write_text(profile.replace("tiny-qa", "no-such-set"))
    assert_refused(local, local.run_module("main", profile="broken"), "no-such-set.jsonl cannot be read")

    (local.root / "params" / "broken.yaml").write_text(profile)
    (folder / "tokenizer.json").write_text("{}")
    result = local.run_module("main", profile="broken", steps="fetch_model,convert_onnx")
    assert_refused(local, result, "main: convert_onnx failed (run ")
    run_id = re.search(r"run ([0-9a-f]{32})", result.err)[1]
    run = local.client.get_run(run_id)
    assert run.info.status == "FAILED"
    assert run.data.tags["error"]
    assert {a.path for a in local.client.list_artifacts(run_id, "logs")} == {"logs/traceback.txt", "logs/output.log"}


def test_a_step_that_is_left_out_and_was_never_run(local):
    (local.root / "params" / "other.yaml").write_text(
        (local.root / "params" / "tiny.yaml").read_text().replace("int4", "int8")
    )
    result = local.run_module("main", profile="other", steps="fetch_model,evaluate")
    assert_refused(local, result, "steps leaves out convert_onnx")


def wait_for_child(local: Project, entry_point: str, process) -> str:
    """Wait until main runs the step; the child's run ID."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        running = local.runs(f"attributes.status = 'RUNNING' and tags.`mlflow.project.entryPoint` = '{entry_point}'")
        if running:
            return running[0].info.run_id
        time.sleep(0.1)
    raise AssertionError(process.communicate())


def pids(project: Project, module: str) -> list[int]:
    """The processes that run `python -m MODULE` in a checkout; other tests run theirs at the same time."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")
            here = (entry / "cwd").resolve(strict=True) == project.root
        except OSError:  # it has ended
            continue
        if here and module.encode() in command and b"python" in command[0]:
            found.append(int(entry.name))
    return found


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM to main", "kill -9 of the step"])
def test_an_interrupted_main_leaves_no_run_open_and_its_finished_steps_are_reused(local, fetched, how):
    process = local.start("main")
    child = wait_for_child(local, "convert_onnx", process)
    time.sleep(2)  # well into its work
    if how == "Ctrl-C":
        os.killpg(process.pid, signal.SIGINT)
    elif how == "SIGTERM to main":
        (main,) = pids(local, "steps.main")
        os.kill(main, signal.SIGTERM)
    else:
        (step,) = pids(local, "steps.convert_onnx")
        os.kill(step, signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert local.runs("attributes.status = 'RUNNING'") == []
    assert pids(local, "steps.convert_onnx") == pids(local, "steps.main") == []
    assert local.client.get_run(child).info.status in ("FAILED", "KILLED")
    assert [a.path for a in local.client.list_artifacts(child) if a.path != "logs"] == []
    if how == "kill -9 of the step":
        assert f"main: convert_onnx failed (run {child}): its process ended without an error message" in err, err
    else:
        assert "main: interrupted" in err
        assert "Traceback" not in err.split("main: interrupted")[0]
    again = local.run_module("main", steps="fetch_model")
    assert again.code == 0
    assert re.match(r"fetch_model +reused", again.out)


def test_a_name_that_is_a_prompts_is_refused_before_any_work(local):
    """MLflow keeps prompts and models under the same names."""
    local.client.register_prompt("taken", "Answer {{question}}")
    profile = (local.root / "params/tiny.yaml").read_text()
    (local.root / "params/taken.yaml").write_text(profile.replace("&name tiny-phi3", "&name taken"))
    assert_refused(local, local.run_module("main", profile="taken"), "registered_model is 'taken'", "prompt")
    main = local.latest("main")
    assert local.runs(f"tags.`mlflow.parentRunId` = '{main.info.run_id}'") == []


def test_a_run_that_a_process_of_this_machine_left_open_is_closed_by_the_next(local, fetched):
    """With what it had under it, but for a step that a process of its own still works on."""
    machine = local.client.get_run(fetched).data.tags["process"].split()[0]
    gone, here = f"{machine} 999999999 1", psutil.Process()
    left = local.client.create_run("0", tags={"process": gone}).info.run_id
    child = {"mlflow.parentRunId": left}
    evaluated = local.client.create_run("0", tags=child).info.run_id
    going_on = [
        local.client.create_run("0", tags=child | {"process": f"{machine} {here.pid} {here.create_time():.0f}"}),
        local.client.create_run("0", tags=child | {"process": "databricks"}),
        local.client.create_run("0", tags={"process": "another/0 999999999 1"}),
    ]
    try:
        assert local.run_module("fetch_model", source="params/tiny-phi3").code == 0
        closed = local.client.get_run(left)
        assert (closed.info.status, "its process ended" in closed.data.tags["error"]) == ("FAILED", True)
        assert local.client.get_run(evaluated).info.status == "FAILED"
        assert [local.client.get_run(run.info.run_id).info.status for run in going_on] == ["RUNNING"] * 3
    finally:
        for run in going_on:
            local.client.set_terminated(run.info.run_id)


def test_a_token_is_in_no_run(local, hub, tmp_path):
    from tests.fakes.hub import Repo

    hub.repos["somebody/gated"] = Repo(
        {path.name: path.read_bytes() for path in TINY.iterdir()}, {"main": "c" * 40}, True
    )
    env = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "wrong-planted-secret"}
    assert_refused(local, local.run_module("fetch_model", env, source="somebody/gated"), "is gated")
    env["HF_TOKEN"] = "right-token"
    assert local.run_module("fetch_model", env, source="somebody/gated").code == 0
    run = local.latest("fetch_model")
    assert run.data.tags["checkpoint_commit"] == "c" * 40
    for secret in (b"wrong-planted-secret", b"right-token", hub.url.encode()):
        for file in [path for path in local.home.rglob("*") if path.is_file() and "hf" not in path.parts]:
            assert secret not in file.read_bytes(), (secret, file)


def test_a_file_cut_short_in_the_hubs_cache_is_fetched_again(local, hub):
    from tests.fakes.hub import Repo

    hub.repos["somebody/open"] = Repo({path.name: path.read_bytes() for path in TINY.iterdir()}, {"main": "d" * 40})
    env = {"HF_ENDPOINT": hub.url}
    assert local.run_module("fetch_model", env, source="somebody/open").code == 0
    (weights,) = (local.home / "hf").glob("**/models--somebody--open/snapshots/*/model.safetensors")
    blob = weights.resolve()
    blob.write_bytes(blob.read_bytes()[:1000])
    result = local.run_module("wrap_transformer", env, checkpoint_run=local.latest("fetch_model").info.run_id)
    assert result.code == 0, result.err
    assert weights.read_bytes() == (TINY / "model.safetensors").read_bytes()
