"""Profiles and parameters: MLproject has the defaults, and an error proposes the valid name nearest to a wrong name."""

import re
from collections.abc import Callable

import pytest
import yaml

from steps.common.errors import StepError
from steps.project import profiles
from steps.project.mlproject import entry_points, parse_parameters
from steps.project.profiles import read_profile
from tests.checkout import ROOT

pytestmark = pytest.mark.unit

SHIPPED = sorted(path.stem for path in (ROOT / "params").glob("*.yaml"))


def test_these_profiles_are_shipped():
    assert SHIPPED == [
        "phi-3-medium-128k",
        "phi-3-medium-4k",
        "phi-3-mini-128k",
        "phi-3-mini-4k",
        "phi-3.5-mini",
        "phi-4",
        "phi-4-mini",
        "phi-4-mini-reasoning",
        "phi-4-reasoning",
        "phi-4-reasoning-plus",
        "tiny",
    ]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_profile_passes_the_checks_that_main_makes(name):
    from steps.main import check  # imports all steps

    check({"profile": name, "steps": "all", "reuse": "true", "experiment_note": ""})


@pytest.mark.parametrize("name", SHIPPED)
def test_no_profile_repeats_a_default(name):
    content = yaml.safe_load((ROOT / "params" / f"{name}.yaml").read_text())
    repeated = [
        (step, key)
        for step, section in content.items()
        for key, value in section.items()
        if value == entry_points()[step][key]
        and (step, key) not in (("convert_onnx", "precision"), ("fetch_model", "revision"))
    ]
    assert not repeated


def test_mlproject_has_the_defaults_of_a_profile():
    sections = read_profile("tiny")
    assert sections["convert_onnx"][0]["exporter"] == entry_points()["convert_onnx"]["exporter"] == "genai"
    assert sections["wrap_custom"][0] == {"task": "llm/v1/chat", "registered_model": "tiny-phi3"}


@pytest.fixture
def write(tmp_path, monkeypatch) -> Callable[[str], object]:
    """write(text): write a profile `mine` in a project of its own."""
    (tmp_path / "params").mkdir()
    monkeypatch.setattr(profiles, "ROOT", tmp_path)
    return lambda text: (tmp_path / "params" / "mine.yaml").write_text(text)


def test_a_list_of_conversions_makes_a_variant_of_each(write):
    write("fetch_model: {source: a/b}\nconvert_onnx:\n- {precision: int4}\n- {precision: fp32, exporter: optimum}\n")
    assert [values["precision"] for values in read_profile("mine")["convert_onnx"]] == ["int4", "fp32"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is not YAML"),
        ("just text", "expected one section per step"),
        ("convert_onx: {}", "no section 'convert_onx'; did you mean 'convert_onnx'"),
        ("fetch_model: {sauce: a/b}", "no key 'sauce'; did you mean 'source'"),
        ("fetch_model: {source: [a]}", "expected a single value"),
        ("fetch_model: {}", "source is missing"),
        ("fetch_model: {source: a/b}\nwrap_custom: {onnx_run: x}", "onnx_run is filled in by main"),
        ("fetch_model: {source: a/b}\nevaluate: [{gates: x}]", "expected `key: value` lines"),
    ],
)
def test_a_bad_profile_is_refused(write, text, message):
    write(text)
    with pytest.raises(StepError, match=message):
        read_profile("mine")


def test_parameters_are_parsed_as_mlproject_passes_them():
    values = parse_parameters("convert_onnx", ["--checkpoint_run=abc", "--options=block_size=32,is_symmetric=true"])
    assert values["options"] == "block_size=32,is_symmetric=true"
    assert values["precision"] == "int4"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["--checkpoint_run=abc", "--precission", "int4"],
            "'precission' is unknown to convert_onnx; did you mean 'precision'",
        ),
        ([], "convert_onnx needs a value for checkpoint_run"),
        (["--checkpoint_run="], "convert_onnx needs a value for checkpoint_run"),
    ],
)
def test_wrong_parameters_are_refused(argv, message):
    with pytest.raises(StepError, match=message):
        parse_parameters("convert_onnx", argv)


def test_no_command_quotes_a_parameter_that_mlflow_quotes_already():
    for name, entry in yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"].items():
        assert not re.search(r"['\"]\{\w+\}['\"]", entry["command"]), name
        assert set(re.findall(r"\{(\w+)\}", entry["command"])) == set(entry.get("parameters", {})), name
