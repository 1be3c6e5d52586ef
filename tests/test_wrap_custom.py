"""wrap_custom through the command line: what it says of a conversion that it cannot read."""

import json

import pytest

from tests.conversion.records import conversion_of

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"schema_version": 0}, "has schema_version 0; this version of the project reads 2: run convert_onnx again"),
        ({"longrope_switch": None}, "is damaged, field longrope_switch: Input should be a valid integer"),
    ],
    ids=["older", "damaged"],
)
def test_an_unreadable_conversion_json_is_named_with_its_field(local, tmp_path, monkeypatch, change, cause):
    monkeypatch.chdir(local.home)  # the client makes a new store's artifact folder in the working directory
    (tmp_path / "model.onnx").write_bytes(b"graph")
    text = json.dumps(json.loads(conversion_of(tmp_path).to_json()) | change)
    run_id = local.client.create_run("0", tags={"mlflow.project.entryPoint": "convert_onnx"}).info.run_id
    local.client.log_text(run_id, text, "conversion.json")
    local.client.set_terminated(run_id, "FINISHED")
    result = local.run_module("wrap_custom", onnx_run=run_id)
    assert result.code == 1
    (line,) = result.error_lines()
    assert f"conversion.json of run {run_id} {cause}" in line
