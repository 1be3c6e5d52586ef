"""How a step gets the checkpoint of a fetch_model run, and the runs that it refuses."""

import json
import shutil
from collections.abc import Callable

import pytest
from mlflow import MlflowClient

from steps.checkpoint.describe import build_manifest
from steps.checkpoint.manifest import MANIFEST, Origin
from steps.common.errors import StepError
from steps.runs.checkpoint_input import VerifiedCheckpoint, verified_checkpoint
from steps.runs.console import Console
from steps.runs.step import Step
from steps.runs.tags import ENTRY_POINT_TAG
from tests.checkout import TINY
from tests.checkpoints.tiny import ORIGIN

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def client(tmp_path_factory) -> MlflowClient:
    """A client of an empty tracking store."""
    folder = tmp_path_factory.mktemp("store")
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    client.create_experiment("tests", artifact_location=(folder / "artifacts").as_uri())
    return client


@pytest.fixture
def verified(client, tmp_path, monkeypatch) -> Callable[[str], VerifiedCheckpoint]:
    """A call of verified_checkpoint in a step, with the ID of a fetch_model run."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", client.tracking_uri)
    step = Step("convert_onnx", client.create_run("1"), Console(), tmp_path)
    return lambda run_id: verified_checkpoint(step, "checkpoint_run", run_id)


def fetched(client: MlflowClient, manifest: str | None, status: str = "FINISHED") -> str:
    """Make a fetch_model run with a manifest or none, and return its ID."""
    run_id = client.create_run("1", tags={ENTRY_POINT_TAG: "fetch_model"}).info.run_id
    if manifest is not None:
        client.log_text(run_id, manifest, MANIFEST)
    client.set_terminated(run_id, status)
    return run_id


def test_a_checkpoint_in_a_folder_is_read_there(client, verified, tmp_path):
    manifest = build_manifest(TINY, ORIGIN)
    checkpoint = verified(fetched(client, manifest.to_json()))
    assert checkpoint == VerifiedCheckpoint(tmp_path / "checkpoint", manifest)
    for name in ("model.safetensors", "tokenizer.json", "chat_template.jinja"):
        assert (checkpoint.folder / name).resolve() == TINY / name


def test_a_run_without_a_manifest_is_refused_by_the_name_of_the_file(client, verified):
    run_id = fetched(client, None)
    with pytest.raises(StepError, match=f"^{MANIFEST} of run {run_id} cannot be read .*: run fetch_model again$"):
        verified(run_id)


def test_a_manifest_of_an_older_version_is_refused_by_the_name_of_the_file(client, verified):
    run_id = fetched(client, '{"format": 1, "files": []}')
    with pytest.raises(StepError, match=f"^{MANIFEST} of run {run_id} has schema_version None; .*: run fetch_model"):
        verified(run_id)


def test_a_damaged_manifest_is_refused_by_the_names_of_file_and_field(client, verified):
    content = json.loads(build_manifest(TINY, ORIGIN).to_json())
    content["files"][0]["size"] = "many"
    run_id = fetched(client, json.dumps(content))
    with pytest.raises(
        StepError, match=rf"^{MANIFEST} of run {run_id} is damaged, field files\.0\.size: .*fetch_model"
    ):
        verified(run_id)


def test_a_folder_that_is_gone_is_named(client, verified, tmp_path):
    folder = shutil.copytree(TINY, tmp_path / "mine")
    origin = Origin(kind="folder", location=str(folder), name="mine", commit="")
    run_id = fetched(client, build_manifest(folder, origin).to_json())
    shutil.rmtree(folder)
    with pytest.raises(StepError, match=f"^the source of run {run_id} is the folder {folder}, which this machine does"):
        verified(run_id)


def test_a_checkpoint_in_the_artifact_store_is_read_there(client, verified, tmp_path):
    holder = client.create_run("1")
    client.log_artifacts(holder.info.run_id, str(TINY), "checkpoint")
    uri = f"runs:/{holder.info.run_id}/checkpoint"
    manifest = build_manifest(TINY, Origin(kind="artifact", location=uri, name="checkpoint", commit=""))
    folder = verified(fetched(client, manifest.to_json())).folder
    assert {path.name for path in folder.iterdir()} == {path.name for path in TINY.iterdir()}


def test_an_unfinished_run_is_refused(client, verified):
    run_id = fetched(client, build_manifest(TINY, ORIGIN).to_json(), "FAILED")
    with pytest.raises(StepError, match=f"^checkpoint_run is '{run_id}', which is FAILED; expected FINISHED"):
        verified(run_id)
