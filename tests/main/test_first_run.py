"""The first main: its runs, what they hand over and leave behind, and what the user sees."""

import re
from pathlib import Path

import mlflow
import pytest

from steps.conversion.record import Conversion
from steps.project.plan import STEPS
from tests.checkout import ROOT, TINY, git

pytestmark = pytest.mark.e2e


def test_every_step_is_a_finished_run_under_main(parent, children):
    assert parent.info.status == "FINISHED"
    assert sorted(children) == sorted(STEPS)
    assert {run.info.status for run in children.values()} == {"FINISHED"}


def test_main_prints_a_line_a_step_and_a_table_and_nothing_else(cold):
    lines = [line for line in cold.out.splitlines() if not line.startswith(("🏃", "🧪"))]  # MLflow's own two lines
    for name, line in zip(STEPS, lines, strict=False):
        assert re.fullmatch(rf"{name} +\d+\.\d s  [0-9a-f]{{32}}  .+", line)
    assert re.match(r"model +accuracy +agreement +KL +TTFT ms +decode tok/s +memory MB +size MB +verdict", lines[6])
    assert lines[10].startswith("look   http://127.0.0.1")
    assert "mlflow models serve -m models:/tiny-phi3@champion" in lines[11]
    assert lines[-1].startswith("main "), cold.out
    assert cold.error_lines() == []


def test_steps_hand_over_run_ids_and_model_uris(children):
    fetch, convert = children["fetch_model"].info.run_id, children["convert_onnx"].info.run_id
    assert children["convert_onnx"].data.params["checkpoint_run"] == fetch
    assert children["wrap_transformer"].data.params["checkpoint_run"] == fetch
    assert children["wrap_custom"].data.params["onnx_run"] == convert
    uris = [children[name].data.tags["model_uri"] for name in ("wrap_transformer", "wrap_custom")]
    assert children["evaluate"].data.params["models"] == ",".join(uris)


def test_the_output_of_libraries_is_in_the_log_of_the_step(children):
    log = mlflow.artifacts.load_text(children["convert_onnx"].info.artifact_uri + "/logs/output.log")
    assert "Saving GenAI config" in log


def test_the_artifact_store_holds_the_checkpoint_once_and_the_onnx_twice(children):
    models = [children[name].data.tags["model_uri"] for name in ("wrap_transformer", "wrap_custom")]
    checkpoint = sum(path.stat().st_size for path in TINY.iterdir())
    converted = children["convert_onnx"].info.artifact_uri
    record = Conversion.parse(mlflow.artifacts.load_text(f"{converted}/conversion.json"), "conversion.json")
    store = sum(_size(uri) for uri in (converted, children["fetch_model"].info.artifact_uri, *models))
    code = sum(path.stat().st_size for path in (ROOT / "steps" / "chat").rglob("*.*") if path.suffix != ".pyc")
    rest = 100_000  # logs, the flavor's copy of the tokenizer
    assert store <= checkpoint + 2 * (record.size_bytes + code) + rest
    assert _size(children["evaluate"].info.artifact_uri) <= 500_000  # it does not grow with the model


def _size(uri: str) -> int:
    folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_the_checkout_stays_clean(project, cold):
    status = git(project.root, "status", "--porcelain", "--ignored")
    assert [line for line in status.splitlines() if "__pycache__" not in line] == []


def test_the_parents_page_explains_the_whole(parent, children, evaluation):
    note = parent.data.tags["mlflow.note.content"]
    assert note.startswith("**Champion: ")
    for run in children.values():
        assert f"runs/{run.info.run_id})" in note
    assert parent.data.tags["profile"] == "tiny"
    assert parent.data.tags["convert_onnx_run"] == children["convert_onnx"].info.run_id
    assert parent.data.metrics["champion/accuracy"] == evaluation.champion_model.value("accuracy")
    table = mlflow.artifacts.load_dict(f"{parent.info.artifact_uri}/comparison.json")
    assert [row[0] for row in table["data"]] == ["transformers-bfloat16", "onnx-genai-int4"]
