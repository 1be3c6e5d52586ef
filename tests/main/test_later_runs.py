"""After the first main: what is reused, what runs again, and steps that run alone."""

import re

import pytest

from steps.project.plan import STEPS
from tests.checkout import ROOT, Result

pytestmark = pytest.mark.e2e


def steps_and_ways(result: Result) -> list[tuple[str, str]]:
    """Return (step, "reused" or "ran") for each line of main's output, main's own included."""
    lines = re.findall(r"^(\w+) +(reused|\d+\.\d s)", result.out, re.MULTILINE)
    return [(name, "reused" if way == "reused" else "ran") for name, way in lines]


def test_a_second_main_reuses_everything_and_starts_nothing(project, children):
    before = len(project.runs())
    result = project.run("main")
    assert result.code == 0, result.err
    assert len(project.runs()) == before + 1, "the new main run and no child"
    for name in STEPS:
        assert re.search(rf"^{name} +reused  {children[name].info.run_id}", result.out, re.MULTILINE)
    assert "onnx-genai-int4" in result.out


def test_reuse_false_runs_a_step_again(project, children):
    result = project.run_module("main", steps="fetch_model", reuse="false")
    assert result.code == 0, result.err
    assert re.match(r"fetch_model +\d", result.out)
    assert project.latest("fetch_model").info.run_id != children["fetch_model"].info.run_id


def test_only_the_steps_that_the_wanted_step_needs_are_looked_for(project, cold):
    result = project.run_module("main", steps="wrap_custom")
    assert result.code == 0, result.err
    reused = [name for name, way in steps_and_ways(result) if way == "reused"]
    assert reused == ["fetch_model", "convert_onnx", "wrap_custom"]


def test_a_custom_model_in_the_registry_is_refused_as_a_source(project, cold):
    """The transformers model is a checkpoint too, in its folder `model`. The custom model holds ONNX only."""
    result = project.run_module("fetch_model", source="models:/tiny-phi3@champion")
    assert result.code == 1
    assert "no *.safetensors" in result.err or "config.json" in result.err


def test_evaluate_runs_alone_on_one_model(project, children, tmp_path):
    evalset = tmp_path / "set.jsonl"
    evalset.write_text('{"messages": [{"role": "user", "content": "What is 1 plus 1?"}], "expected": "2"}\n')
    result = project.run(
        "evaluate",
        models="models:/tiny-phi3@champion",
        reference_run=children["fetch_model"].info.run_id,
        evalset=str(evalset),
        effort="quick",
    )
    assert result.code == 0, result.err
    summary = r"evaluate +\d+\.\d s  [0-9a-f]{32}  1 model on 1 question, champion: onnx-genai-int4"
    assert re.match(summary, result.out)


def test_a_profile_may_list_variants_and_each_is_reused_on_its_own(project, cold):
    profile = (ROOT / "params" / "tiny.yaml").read_text()
    assert "convert_onnx:\n  precision: int4\n" in profile
    sections = "convert_onnx:\n- {precision: int4}\n- {precision: int8, options: block_size=64}\n"
    variants = profile.replace("convert_onnx:\n  precision: int4\n", sections)
    (project.root / "params" / "variants.yaml").write_text(variants)
    result = project.run_module("main", profile="variants", steps="convert_onnx,wrap_custom")
    assert result.code == 0, result.err
    assert [(name, way) for name, way in steps_and_ways(result) if name in ("convert_onnx", "wrap_custom")] == [
        ("convert_onnx", "reused"),
        ("convert_onnx", "ran"),
        ("wrap_custom", "reused"),
        ("wrap_custom", "ran"),
    ]
    versions = project.client.search_model_versions("name = 'tiny-phi3'", order_by=["version_number DESC"])
    assert (versions[0].tags["precision"], versions[0].tags["options"]) == ("int8", "block_size=64")


def test_an_edit_reruns_the_steps_that_use_it_and_no_others(project, cold):
    with (project.root / "steps" / "conversion" / "runtime_limits.py").open("a") as file:
        file.write("# edited\n")
    result = project.run_module("main", steps="convert_onnx,wrap_transformer,wrap_custom")
    assert result.code == 0, result.err
    assert dict(steps_and_ways(result)) == {
        "fetch_model": "reused",
        "convert_onnx": "ran",
        "wrap_transformer": "reused",
        "wrap_custom": "ran",
        "main": "ran",
    }
